// The one screen: how the agent is, and a way to join, to start, to pause and to leave. It holds nothing: the service does.
package ai.polyphony;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;
import android.os.Handler;
import android.os.Looper;
import android.view.View;
import android.widget.EditText;
import android.widget.TextView;

public final class MainActivity extends Activity implements View.OnClickListener {
    private static final long LOOK_MILLIS = 1_000;
    private static final int SCAN = 1;

    private final Handler handler = new Handler(Looper.getMainLooper());
    private final Runnable look = new Runnable() {
        @Override
        public void run() {
            show(Status.latest);
            handler.postDelayed(this, LOOK_MILLIS);
        }
    };
    private Choices choices;
    private EditText link;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        setContentView(R.layout.main);
        choices = new Choices(this);
        link = (EditText) findViewById(R.id.link);
        say(R.id.name, getString(R.string.phone_name, choices.phoneName()));
        for (int id : new int[] {R.id.scan, R.id.join, R.id.start, R.id.pause, R.id.leave, R.id.exempt}) {
            findViewById(id).setOnClickListener(this);
        }
        if (state == null) {
            onNewIntent(getIntent());
        }
    }

    /** A link that was opened elsewhere is only filled in: any page of the web can open one, and joining is the person's to say. */
    @Override
    protected void onNewIntent(Intent intent) {
        String opened = JoinLink.in(intent.getDataString());
        if (opened != null) {
            link.setText(opened);
        }
    }

    @Override
    protected void onResume() {
        super.onResume();
        look.run();
    }

    @Override
    protected void onPause() {
        handler.removeCallbacks(look);
        super.onPause();
    }

    @Override
    public void onClick(View view) {
        int id = view.getId();
        if (id == R.id.scan) {
            startActivityForResult(new Intent(this, ScanActivity.class), SCAN);
        } else if (id == R.id.join) {
            join(JoinLink.in(link.getText()));
        } else if (id == R.id.start) {
            start(null);
        } else if (id == R.id.pause) {
            // By what the person wants: a phone that is short of memory says that first.
            AgentService.send(this, choices.isPaused() ? AgentService.RESUME : AgentService.PAUSE, null);
        } else if (id == R.id.leave) {
            AgentService.send(this, AgentService.LEAVE, null);
        } else if (id == R.id.exempt) {
            Permissions.askExemption(this);
        }
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        if (request == SCAN && result == RESULT_OK) {
            join(data.getStringExtra(ScanActivity.LINK));
        }
    }

    @Override
    public void onRequestPermissionsResult(int request, String[] permissions, int[] results) {
        if (Status.latest.isRunning()) {
            // The notification is shown now if it was allowed.
            AgentService.send(this, AgentService.START, null);
        }
        Permissions.askNext(this, choices);
    }

    private void join(String to) {
        String fault = to == null ? getString(R.string.no_link) : Agent.isThere() ? Agent.linkFault(to) : null;
        if (fault != null) {
            // Said only where the person writes.
            link.requestFocus();
            link.setError(fault);
            return;
        }
        link.setText("");
        start(to);
    }

    private void start(String to) {
        AgentService.send(this, AgentService.START, to);
        Permissions.askNext(this, choices);
    }

    private void show(Status status) {
        boolean stopped = status.state.equals(Status.STOPPED);
        boolean running = status.isRunning();
        say(R.id.state, Words.state(this, status));
        say(R.id.figures, Words.figures(this, status));
        say(R.id.message, status.message);
        // At a host there is nothing to join, but for whoever comes with another link.
        boolean mayJoin = stopped || status.state.equals(Status.JOINING) || link.length() > 0;
        show(R.id.joining, mayJoin);
        show(R.id.start, stopped && choices.hasJoined());
        show(R.id.pause, running);
        show(R.id.leave, running);
        show(R.id.exempt, running && !Permissions.isExempt(this));
        say(R.id.pause, getString(choices.isPaused() ? R.string.resume : R.string.pause));
    }

    private void show(int id, boolean shown) {
        findViewById(id).setVisibility(shown ? View.VISIBLE : View.GONE);
    }

    /** Only what has changed: a screen reader would read the same again, each second. */
    private void say(int id, String text) {
        TextView view = (TextView) findViewById(id);
        if (!text.contentEquals(view.getText())) {
            view.setText(text);
        }
    }
}
