// The notification: state, speed and heat, with buttons to pause and to leave.
package ai.polyphony;

import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.PendingIntent;
import android.content.Context;
import android.content.Intent;
import android.os.Build;

final class Notice {
    /** The service's own, which goes when the service does. */
    static final int ID = 1;
    private static final int STOPPED_ID = 2;
    private static final String CHANNEL = "agent";
    /** No other app can change what the buttons do. Android 12 demands that it is said. */
    private static final int PENDING = PendingIntent.FLAG_IMMUTABLE | PendingIntent.FLAG_UPDATE_CURRENT;

    private final Context context;
    private final Choices choices;
    private final NotificationManager manager;
    private String shown = "";

    Notice(Context context) {
        this.context = context;
        choices = new Choices(context);
        manager = (NotificationManager) context.getSystemService(Context.NOTIFICATION_SERVICE);
        if (Build.VERSION.SDK_INT >= 26) {
            // Low: seen, never heard.
            CharSequence name = context.getString(R.string.channel);
            manager.createNotificationChannel(
                    new NotificationChannel(CHANNEL, name, NotificationManager.IMPORTANCE_LOW));
        }
    }

    Notification of(Status status) {
        boolean paused = choices.isPaused();
        Notification.Builder notice = plain(Words.state(context, status), text(status)).setOngoing(true);
        // A pause of one that is leaving would start it again.
        if (!status.state.equals(Status.ENDING)) {
            notice.addAction(R.drawable.notification, context.getString(paused ? R.string.resume : R.string.pause),
                            service(paused ? AgentService.RESUME : AgentService.PAUSE))
                    .addAction(R.drawable.notification, context.getString(R.string.leave), service(AgentService.LEAVE));
        }
        if (Build.VERSION.SDK_INT >= 31) {
            // Else it may come ten seconds late.
            notice.setForegroundServiceBehavior(Notification.FOREGROUND_SERVICE_IMMEDIATE);
        }
        return notice.build();
    }

    /** Only what has changed is shown again: each time costs the phone something. */
    void show(Status status) {
        String now = status.state + '\n' + choices.isPaused() + '\n' + text(status);
        if (!now.equals(shown)) {
            shown = now;
            manager.cancel(STOPPED_ID);
            manager.notify(ID, of(status));
        }
    }

    /** One that stays when the service has gone, to say why it has. */
    void showStopped(String why) {
        String title = context.getString(R.string.state_stopped);
        manager.notify(STOPPED_ID, plain(title, why).setAutoCancel(true).build());
    }

    private String text(Status status) {
        String figures = Words.figures(context, status);
        String gap = figures.isEmpty() || status.message.isEmpty() ? "" : " · ";
        return figures + gap + status.message;
    }

    private Notification.Builder plain(String title, String text) {
        Notification.Builder notice =
                Build.VERSION.SDK_INT >= 26 ? new Notification.Builder(context, CHANNEL) : new Notification.Builder(context);
        return notice.setSmallIcon(R.drawable.notification)
                .setContentTitle(title)
                .setContentText(text)
                .setContentIntent(PendingIntent.getActivity(context, 0, new Intent(context, MainActivity.class), PENDING))
                .setOnlyAlertOnce(true)
                .setShowWhen(false);
    }

    /** The service is in the foreground whenever a button is there to be pressed, so that it may be started as any other. */
    private PendingIntent service(String action) {
        Intent intent = new Intent(context, AgentService.class).setAction(action);
        return PendingIntent.getService(context, 0, intent, PENDING);
    }
}
