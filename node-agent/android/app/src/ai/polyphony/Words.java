// A status in people's words, the same on the screen and in the notification.
package ai.polyphony;

import android.content.Context;

final class Words {
    private Words() {}

    static String state(Context context, Status status) {
        switch (status.state) {
            case Status.STOPPED:
                return context.getString(R.string.state_stopped);
            case Status.ENDING:
                return context.getString(R.string.state_ending);
            case Status.JOINING:
                return context.getString(R.string.state_joining);
            case Status.IDLE:
                return context.getString(R.string.state_idle);
            case Status.LOADING:
                return context.getString(R.string.state_loading);
            case Status.READY:
                return context.getString(R.string.state_ready);
            case Status.SERVING:
                return context.getString(R.string.state_serving);
            case Status.WITHDRAWN:
                return context.getString(R.string.state_withdrawn);
            case Status.PAUSED:
                return context.getString(R.string.state_paused);
            default:
                // A newer agent's.
                return status.state;
        }
    }

    /** Speed and heat, as far as they are known. */
    static String figures(Context context, Status status) {
        StringBuilder text = new StringBuilder();
        if (!Double.isNaN(status.tokensPerSecond)) {
            text.append(context.getString(R.string.tokens_per_second, status.tokensPerSecond));
        }
        if (!Double.isNaN(status.temperatureCelsius)) {
            text.append(text.length() > 0 ? " · " : "");
            text.append(context.getString(R.string.celsius, status.temperatureCelsius));
        }
        return text.toString();
    }
}
