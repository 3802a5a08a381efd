// Signatures alone, those of Android 8 and 12 that the app uses besides Android 6.0's: for javac, and never packed.
package android.app;

import android.content.Context;

public class Notification {
    public static final int FOREGROUND_SERVICE_IMMEDIATE = 1;

    public static class Builder {
        public Builder(Context context) {}

        public Builder(Context context, String channelId) {}

        public native Builder setSmallIcon(int icon);

        public native Builder setContentTitle(CharSequence title);

        public native Builder setContentText(CharSequence text);

        public native Builder setContentIntent(PendingIntent intent);

        public native Builder setOnlyAlertOnce(boolean onlyAlertOnce);

        public native Builder setShowWhen(boolean show);

        public native Builder setOngoing(boolean ongoing);

        public native Builder setAutoCancel(boolean autoCancel);

        public native Builder addAction(int icon, CharSequence title, PendingIntent intent);

        public native Builder setForegroundServiceBehavior(int behavior);

        public native Notification build();
    }
}
