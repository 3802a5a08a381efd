// Signatures alone, those of Android 7 and 8 that the app uses besides Android 6.0's: for javac, and never packed.
package android.app;

public class NotificationManager {
    public static final int IMPORTANCE_LOW = 2;

    NotificationManager() {}

    public native void createNotificationChannel(NotificationChannel channel);

    public native void notify(int id, Notification notification);

    public native void cancel(int id);
}
