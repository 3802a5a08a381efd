// How the agent is: what it says of itself, for the notification, the locks and the screen.
package ai.polyphony;

import org.json.JSONException;
import org.json.JSONObject;

final class Status {
    static final String STOPPED = "stopped";
    static final String ENDING = "ending";
    static final String JOINING = "joining";
    static final String IDLE = "idle";
    static final String LOADING = "loading";
    static final String READY = "ready";
    static final String SERVING = "serving";
    static final String WITHDRAWN = "withdrawn";
    static final String PAUSED = "paused";

    /** The last one. AgentThread writes it; the screen, which lives in the same process, reads it. */
    static volatile Status latest = new Status(STOPPED, "");

    final String state;
    /** Whether it has a part of a model that others count on, or that is still to be handed over. */
    final boolean holdsSegments;
    /** Whether a host has taken it in since it was started. */
    final boolean hasJoined;
    /** NaN where nothing is being said; so is the temperature where none is known. */
    final double tokensPerSecond;
    final double temperatureCelsius;
    final String message;

    private Status(
            String state,
            boolean holdsSegments,
            boolean hasJoined,
            double tokensPerSecond,
            double temperatureCelsius,
            String message) {
        this.state = state;
        this.holdsSegments = holdsSegments;
        this.hasJoined = hasJoined;
        this.tokensPerSecond = tokensPerSecond;
        this.temperatureCelsius = temperatureCelsius;
        this.message = message;
    }

    Status(String state, String message) {
        this(state, false, false, Double.NaN, Double.NaN, message);
    }

    /** What is no JSON is shown as it came: it is for people to report. */
    static Status parse(String json) {
        try {
            JSONObject said = new JSONObject(json);
            return new Status(
                    said.optString("state", STOPPED),
                    said.optBoolean("holdsSegments"),
                    said.optBoolean("hasJoined"),
                    said.optDouble("tokensPerSecond", Double.NaN),
                    said.optDouble("temperatureCelsius", Double.NaN),
                    said.isNull("message") ? "" : said.optString("message"));
        } catch (JSONException unreadable) {
            return new Status(STOPPED, json);
        }
    }

    /** Whether it runs, and was not asked to end: whether there is something to pause and to leave. */
    boolean isRunning() {
        return !state.equals(STOPPED) && !state.equals(ENDING);
    }

    /** Whether other phones count on this one, or its host has still to move away what it has. Without its host neither is so. */
    boolean isNeeded() {
        return holdsSegments && !state.equals(JOINING);
    }

    /** Whether this one waits for others, or for its own limits. What its person paused waits for the person, who wakes it. */
    boolean isWaiting() {
        return state.equals(JOINING) || state.equals(IDLE) || state.equals(LOADING) || state.equals(WITHDRAWN);
    }
}
