// Signatures alone, those of Android 10 and 11 that the app uses besides Android 6.0's: for javac, and never packed.
package android.os;

public final class PowerManager {
    public static final int PARTIAL_WAKE_LOCK = 1;

    PowerManager() {}

    public native WakeLock newWakeLock(int levelAndFlags, String tag);

    public native boolean isIgnoringBatteryOptimizations(String packageName);

    public native void addThermalStatusListener(OnThermalStatusChangedListener listener);

    public native void removeThermalStatusListener(OnThermalStatusChangedListener listener);

    public native float getThermalHeadroom(int forecastSeconds);

    public final class WakeLock {
        WakeLock() {}

        public native void setReferenceCounted(boolean value);

        public native void acquire();

        public native void acquire(long timeout);

        public native void release();
    }

    public interface OnThermalStatusChangedListener {
        void onThermalStatusChanged(int status);
    }
}
