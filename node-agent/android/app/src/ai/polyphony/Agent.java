// The agent itself: Rust, as a library in this process. Android ends child processes of apps when there are many, so it is none.
package ai.polyphony;

/**
 * Texts that go in and come out as JSON are objects; what is not known is absent.
 *
 * `start`, `stop` and `tell` are called by AgentThread alone, in any order, since `stop` takes its time; the others from anywhere.
 */
final class Agent {
    private static final boolean THERE = load();

    private Agent() {}

    /** Whether this package has the library for this phone's processor. Without it nothing below may be called. */
    static boolean isThere() {
        return THERE;
    }

    private static boolean load() {
        try {
            System.loadLibrary("polyphony_app");
            return true;
        } catch (UnsatisfiedLinkError missing) {
            return false;
        }
    }

    /** Starts it on what `dataDir` holds. `joinLink` is null where it joined before. Returns null, or why it did not start, for people. */
    static native String start(String dataDir, String phoneName, String joinLink);

    /** Null, or why nobody can join by this text, for people. It is not tried. */
    static native String linkFault(String joinLink);

    /** Ends it. With `leave` it finishes its step and says goodbye to the ring, which takes some seconds at most. */
    static native void stop(boolean leave);

    /** What PhoneReport gathered: the whole of it each time. */
    static native void tell(String json);

    /** What Status reads. */
    static native String status();

    /** The text of the QR code in a picture of which `luma` has the brightness, row by row without gaps; null where there is none. */
    static native String readCode(byte[] luma, int width, int height);
}
