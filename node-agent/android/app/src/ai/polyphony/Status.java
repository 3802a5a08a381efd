// How the agent is: what it says of itself, for the notification, the locks and the screen.
package ai.polyphony;

import org.json.JSONException;
import org.json.JSONObject;

final class Status {
    static final String IDLE = "idle";
    static final String JOINING = "joining";
    static final String READY = "ready";
    static final String SERVING = "serving";
    static final String PAUSED = "paused";
    static final String STOPPED = "stopped";

    /** The last one. AgentThread writes it; the screen, which lives in the same process, reads it. */
    static volatile Status latest = new Status(STOPPED, "");

    final String state;
    /** NaN where nothing is being said; so is the temperature where none is known. */
    final double tokensPerSecond;
    final double temperatureCelsius;
    final String message;

    private Status(String state, double tokensPerSecond, double temperatureCelsius, String message) {
        this.state = state;
        this.tokensPerSecond = tokensPerSecond;
        this.temperatureCelsius = temperatureCelsius;
        this.message = message;
    }

    Status(String state, String message) {
        this(state, Double.NaN, Double.NaN, message);
    }

    /** What is no JSON is shown as it came: it is for people to report. */
    static Status parse(String json) {
        try {
            JSONObject said = new JSONObject(json);
            return new Status(
                    said.optString("state", STOPPED),
                    said.optDouble("tokensPerSecond", Double.NaN),
                    said.optDouble("temperatureCelsius", Double.NaN),
                    said.isNull("message") ? "" : said.optString("message"));
        } catch (JSONException unreadable) {
            return new Status(STOPPED, json);
        }
    }

    /** Whether other phones wait for this one. */
    boolean isInRing() {
        return state.equals(READY) || state.equals(SERVING);
    }

    /** Whether this one waits for others, or for its own policy. */
    boolean isWaiting() {
        return state.equals(JOINING) || state.equals(IDLE);
    }
}
