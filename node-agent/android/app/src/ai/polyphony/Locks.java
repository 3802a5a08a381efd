// What keeps the phone from sleeping while others wait for it, and no longer.
package ai.polyphony;

import android.content.Context;
import android.net.wifi.WifiManager;
import android.os.Build;
import android.os.PowerManager;

final class Locks {
    /** Enough to join a host, or to find that it is not there. */
    private static final long BRIEFLY_MILLIS = 30_000;
    /** WifiManager.WIFI_MODE_FULL_LOW_LATENCY, of Android 10. */
    private static final int LOW_LATENCY = 4;

    private final PowerManager.WakeLock ring;
    private final PowerManager.WakeLock brief;
    private final WifiManager.WifiLock[] wifi;
    private final WifiManager.MulticastLock multicast;

    Locks(Context context) {
        PowerManager power = (PowerManager) context.getSystemService(Context.POWER_SERVICE);
        ring = power.newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "polyphony:ring");
        brief = power.newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "polyphony:change");
        ring.setReferenceCounted(false);
        brief.setReferenceCounted(false);

        WifiManager manager = (WifiManager) context.getApplicationContext().getSystemService(Context.WIFI_SERVICE);
        // The second works only while the screen is on, until Android 14, which took the first away: before that it is the first that counts.
        wifi = Build.VERSION.SDK_INT >= 29
                ? new WifiManager.WifiLock[] {
                    manager.createWifiLock(WifiManager.WIFI_MODE_FULL_HIGH_PERF, "polyphony:ring"),
                    manager.createWifiLock(LOW_LATENCY, "polyphony:ring-quick"),
                }
                : new WifiManager.WifiLock[] {
                    manager.createWifiLock(WifiManager.WIFI_MODE_FULL_HIGH_PERF, "polyphony:ring"),
                };
        for (WifiManager.WifiLock lock : wifi) {
            lock.setReferenceCounted(false);
        }
        multicast = manager.createMulticastLock("polyphony:discovery");
        multicast.setReferenceCounted(false);
    }

    /**
     * What a status needs: awake and on Wi-Fi for as long as it holds what others need, also when it takes no part any more; hearing mDNS, by which
     * hosts are found, while joining.
     *
     * A phone that charges stays awake too while it waits: asleep it would not see that its host is back or that it has cooled down, and nobody may
     * come by to wake it.
     */
    void hold(Status status, boolean charging) {
        if (status.isNeeded() || (charging && status.isWaiting())) {
            ring.acquire();
        } else {
            ring.release();
        }
        if (status.isNeeded()) {
            for (WifiManager.WifiLock lock : wifi) {
                lock.acquire();
            }
        } else {
            for (WifiManager.WifiLock lock : wifi) {
                lock.release();
            }
        }
        if (status.state.equals(Status.JOINING)) {
            multicast.acquire();
        } else {
            multicast.release();
        }
    }

    /** Awake for long enough to act on a change: else the phone sleeps again as soon as it was told that it charges. */
    void brieflyAwake() {
        brief.acquire(BRIEFLY_MILLIS);
    }

    void release() {
        hold(new Status(Status.STOPPED, ""), false);
        brief.release();
    }
}
