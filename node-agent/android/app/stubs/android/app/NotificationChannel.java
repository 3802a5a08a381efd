// Signatures alone, those of Android 8 that the app uses besides Android 6.0's: for javac, and never packed.
package android.app;

public final class NotificationChannel {
    public NotificationChannel(String id, CharSequence name, int importance) {}
}
