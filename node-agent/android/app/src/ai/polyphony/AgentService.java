// The foreground service that holds the agent up: from the person's start, or boot, until the person leaves. It stays up while there is nothing to
// do, since Android lets no service start from the background when power or Wi-Fi comes.
package ai.polyphony;

import android.app.Service;
import android.content.Context;
import android.content.Intent;
import android.os.Build;
import android.os.IBinder;
import android.util.Log;

public final class AgentService extends Service implements AgentThread.Watcher {
    static final String START = "ai.polyphony.START";
    static final String PAUSE = "ai.polyphony.PAUSE";
    static final String RESUME = "ai.polyphony.RESUME";
    static final String LEAVE = "ai.polyphony.LEAVE";
    private static final String LINK = "link";
    /** ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE, of Android 14. */
    private static final int SPECIAL_USE = 0x40000000;

    private Choices choices;
    private Notice notice;
    private AgentThread agent;
    private boolean inForeground;

    /** Says what to do, and starts the service where it is not up. `link` may be null. From the background, Android may refuse by an exception. */
    static void send(Context context, String action, String link) {
        Intent intent = new Intent(context, AgentService.class).setAction(action).putExtra(LINK, link);
        if (Build.VERSION.SDK_INT >= 26) {
            context.startForegroundService(intent);
        } else {
            context.startService(intent);
        }
    }

    @Override
    public void onCreate() {
        super.onCreate();
        choices = new Choices(this);
        notice = new Notice(this);
        agent = new AgentThread(this, choices, this);
    }

    @Override
    public int onStartCommand(Intent intent, int flags, int startId) {
        if (!stayInForeground()) {
            notice.showStopped(getString(R.string.tap_to_start));
            stopSelf();
            return START_NOT_STICKY;
        }
        // Without an intent it is Android that starts it again, after it ended the process for memory.
        String action = intent == null ? START : intent.getAction();
        boolean leaves = LEAVE.equals(action);
        choices.setStarted(!leaves);
        if (leaves) {
            agent.leave(startId);
        } else if (PAUSE.equals(action) || RESUME.equals(action)) {
            agent.pause(startId, PAUSE.equals(action));
        } else {
            agent.start(startId, intent == null ? null : intent.getStringExtra(LINK));
        }
        return leaves ? START_NOT_STICKY : START_STICKY;
    }

    /**
     * False where Android 12 and later do not allow it: after the end of a process, unless the app is exempt from battery optimisation. What is there
     * already stays there, though it may not say so again.
     */
    private boolean stayInForeground() {
        try {
            if (Build.VERSION.SDK_INT >= 34) {
                startForeground(Notice.ID, notice.of(Status.latest), SPECIAL_USE);
            } else {
                startForeground(Notice.ID, notice.of(Status.latest));
            }
            inForeground = true;
        } catch (IllegalStateException refused) {
            Log.w("polyphony", "not in the foreground", refused);
        }
        return inForeground;
    }

    @Override
    public void showed(Status status) {
        notice.show(status);
    }

    @Override
    public void ended(int command, Status status) {
        if (!status.message.isEmpty()) {
            notice.showStopped(status.message);
        }
        // Not where another command has come since.
        stopSelf(command);
    }

    @Override
    public void onDestroy() {
        agent.close();
        super.onDestroy();
    }

    @Override
    public IBinder onBind(Intent intent) {
        return null;
    }
}
