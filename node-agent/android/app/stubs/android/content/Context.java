// Signatures alone, those of Android 8 that the app uses besides Android 6.0's: for javac, and never packed.
package android.content;

import android.os.Handler;
import java.io.File;

/** What is abstract in the platform's is not so here: the classes between this one and the app's are older than some of it. */
public abstract class Context {
    public static final int MODE_PRIVATE = 0;
    public static final String ACTIVITY_SERVICE = "activity";
    public static final String BATTERY_SERVICE = "batterymanager";
    public static final String CAMERA_SERVICE = "camera";
    public static final String CONNECTIVITY_SERVICE = "connectivity";
    public static final String NOTIFICATION_SERVICE = "notification";
    public static final String POWER_SERVICE = "power";
    public static final String WIFI_SERVICE = "wifi";

    public native Context getApplicationContext();

    public native String getPackageName();

    public native Object getSystemService(String name);

    public native SharedPreferences getSharedPreferences(String name, int mode);

    public native File getNoBackupFilesDir();

    public final native String getString(int id);

    public final native String getString(int id, Object... arguments);

    public native void startActivity(Intent intent);

    public native ComponentName startService(Intent intent);

    public native ComponentName startForegroundService(Intent intent);

    public native Intent registerReceiver(
            BroadcastReceiver receiver, IntentFilter filter, String permission, Handler scheduler);

    public native void unregisterReceiver(BroadcastReceiver receiver);
}
