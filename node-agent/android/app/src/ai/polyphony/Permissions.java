// What the person is asked for besides joining, one thing at a time, each once: to show the notification, and to run while the phone rests.
package ai.polyphony;

import android.Manifest;
import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Context;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.net.Uri;
import android.os.Build;
import android.os.PowerManager;
import android.provider.Settings;

final class Permissions {
    /** Manifest.permission.POST_NOTIFICATIONS, of Android 13. */
    private static final String NOTIFICATIONS = "android.permission.POST_NOTIFICATIONS";

    private Permissions() {}

    /** The next thing that is missing. Its answer comes to `onRequestPermissionsResult`, which calls this again. */
    static void askNext(Activity activity, Choices choices) {
        if (Build.VERSION.SDK_INT >= 33 && !has(activity, NOTIFICATIONS) && !choices.askedBefore("notifications")) {
            activity.requestPermissions(new String[] {NOTIFICATIONS}, 0);
        } else if (!isExempt(activity) && !choices.askedBefore("exemption")) {
            askExemption(activity);
        }
    }

    static boolean hasCamera(Activity activity) {
        return has(activity, Manifest.permission.CAMERA);
    }

    static void askCamera(Activity activity) {
        activity.requestPermissions(new String[] {Manifest.permission.CAMERA}, 0);
    }

    /** Whether Android leaves the app its network and its processor while the phone lies still. */
    static boolean isExempt(Context context) {
        PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
        return power.isIgnoringBatteryOptimizations(context.getPackageName());
    }

    static void askExemption(Activity activity) {
        Uri app = Uri.parse("package:" + activity.getPackageName());
        try {
            activity.startActivity(new Intent(Settings.ACTION_REQUEST_IGNORE_BATTERY_OPTIMIZATIONS, app));
        } catch (ActivityNotFoundException missing) {
            // Some makers have taken it out; their list of apps is the way there.
            activity.startActivity(new Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, app));
        }
    }

    private static boolean has(Activity activity, String permission) {
        return activity.checkSelfPermission(permission) == PackageManager.PERMISSION_GRANTED;
    }
}
