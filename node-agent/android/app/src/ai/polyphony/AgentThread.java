// The thread that owns the agent: everything that starts, ends and feeds it happens here, one after the other, and never on the screen's thread.
package ai.polyphony;

import android.content.Context;
import android.os.Handler;
import android.os.HandlerThread;

final class AgentThread {
    /** How often the agent hears of memory and heat, and is asked how it is. It does not wake a phone that sleeps. */
    private static final long TICK_MILLIS = 3_000;

    /** Is told on this thread. */
    interface Watcher {
        void showed(Status status);

        /** The agent has ended, by `command` or later: that of the last call to `start`, `pause` or `leave`. */
        void ended(int command, Status status);
    }

    private final Context context;
    private final Choices choices;
    private final Watcher watcher;
    private final HandlerThread thread = new HandlerThread("polyphony-agent");
    private final Handler handler;
    private PhoneReport report;
    private Locks locks;
    private int command;
    private boolean running;

    private final Runnable tick = new Runnable() {
        @Override
        public void run() {
            tell();
            look();
            if (running) {
                handler.postDelayed(this, TICK_MILLIS);
            }
        }
    };

    AgentThread(Context context, Choices choices, Watcher watcher) {
        this.context = context;
        this.choices = choices;
        this.watcher = watcher;
        thread.start();
        handler = new Handler(thread.getLooper());
        handler.post(new Runnable() {
            @Override
            public void run() {
                open();
            }
        });
    }

    private void open() {
        locks = new Locks(context);
        report = new PhoneReport(context, handler, new Runnable() {
            @Override
            public void run() {
                locks.brieflyAwake();
                tell();
            }
        });
    }

    /** Joins by `link`, or, where that is null, as before. With a link it leaves the host that it is at, but not for one that nobody can join by. */
    void start(final int command, final String link) {
        handler.post(new Runnable() {
            @Override
            public void run() {
                AgentThread.this.command = command;
                if (link == null) {
                    begin();
                } else {
                    moveTo(link);
                }
            }
        });
    }

    private void moveTo(String link) {
        // Without the library begin says so.
        String fault = Agent.isThere() ? Agent.linkFault(link) : null;
        if (fault == null) {
            // Who has joined needs no link any more, and the goodbye says so: the new one is kept after it.
            goodbye();
            choices.keepLink(link);
            begin();
        } else if (!running) {
            ended(new Status(Status.STOPPED, fault));
        }
    }

    void pause(final int command, final boolean paused) {
        handler.post(new Runnable() {
            @Override
            public void run() {
                AgentThread.this.command = command;
                choices.setPaused(paused);
                // Android may have ended the process since the button was shown.
                begin();
                tell();
                look();
            }
        });
    }

    /** Finishes its step, says goodbye to the ring, and ends. */
    void leave(final int command) {
        handler.post(new Runnable() {
            @Override
            public void run() {
                AgentThread.this.command = command;
                goodbye();
                // One that led nowhere until now: who leaves does not wait for it.
                choices.forgetLink();
                ended(new Status(Status.STOPPED, ""));
            }
        });
    }

    /** Ends the agent without a goodbye, and the thread. */
    void close() {
        handler.post(new Runnable() {
            @Override
            public void run() {
                end(false);
                report.close();
                locks.release();
                thread.quit();
            }
        });
    }

    private void begin() {
        if (running) {
            return;
        }
        if (!Agent.isThere()) {
            ended(new Status(Status.STOPPED, context.getString(R.string.no_library)));
            return;
        }
        Status joining = new Status(Status.JOINING, "");
        locks.brieflyAwake();
        locks.hold(joining, report.isCharging());
        show(joining);
        // Before it starts: it is not to take part for a moment on an empty battery.
        Agent.tell(report.json(choices.isPaused()));
        String failure = Agent.start(context.getNoBackupFilesDir().getPath(), choices.phoneName(), choices.link());
        if (failure != null) {
            choices.forgetLink();
            ended(new Status(Status.STOPPED, failure));
            return;
        }
        running = true;
        tick.run();
    }

    private void tell() {
        if (running) {
            Agent.tell(report.json(choices.isPaused()));
        }
    }

    private void look() {
        if (!running) {
            return;
        }
        Status status = Status.parse(Agent.status());
        if (status.hasJoined) {
            choices.setJoined();
        }
        if (status.state.equals(Status.STOPPED)) {
            end(false);
            // One by which it joined is forgotten already. This one failed: the next start goes to the host of before.
            choices.forgetLink();
            ended(status);
        } else {
            locks.hold(status, report.isCharging());
            show(status);
        }
    }

    private void show(Status status) {
        Status.latest = status;
        watcher.showed(status);
    }

    /** Ends it once its host has moved away what it holds; awake for as long as that takes. */
    private void goodbye() {
        if (running) {
            locks.brieflyAwake();
            show(new Status(Status.ENDING, context.getString(R.string.leaving)));
            end(true);
        }
    }

    private void end(boolean leave) {
        if (running) {
            handler.removeCallbacks(tick);
            Agent.stop(leave);
            running = false;
            // It may have joined since the last tick.
            if (Status.parse(Agent.status()).hasJoined) {
                choices.setJoined();
            }
        }
    }

    private void ended(Status status) {
        locks.release();
        Status.latest = status;
        watcher.ended(command, status);
    }
}
