// The network that this phone would use now, and whether somebody pays for each byte of it.
package ai.polyphony;

import android.content.Context;
import android.net.ConnectivityManager;
import android.net.NetworkCapabilities;
import android.os.Handler;
import org.json.JSONException;
import org.json.JSONObject;

final class Network extends ConnectivityManager.NetworkCallback {
    private final ConnectivityManager manager;
    private final Handler handler;
    private final Runnable changed;
    /** Null without a network. */
    private NetworkCapabilities latest;

    /** Calls `changed` on `handler` when the kind of network changes. */
    Network(Context context, Handler handler, Runnable changed) {
        this.handler = handler;
        this.changed = changed;
        manager = (ConnectivityManager) context.getSystemService(Context.CONNECTIVITY_SERVICE);
        // Nobody calls back where there is none.
        latest = manager.getNetworkCapabilities(manager.getActiveNetwork());
        manager.registerDefaultNetworkCallback(this);
    }

    @Override
    public void onCapabilitiesChanged(android.net.Network network, NetworkCapabilities capabilities) {
        take(capabilities);
    }

    @Override
    public void onLost(android.net.Network network) {
        take(null);
    }

    /** From Android's thread to ours. Signal strength comes here too, many times a minute: that is no change. */
    private void take(final NetworkCapabilities now) {
        handler.post(new Runnable() {
            @Override
            public void run() {
                boolean same = kind(now).equals(kind(latest)) && isMetered(now) == isMetered(latest);
                latest = now;
                if (!same) {
                    changed.run();
                }
            }
        });
    }

    void into(JSONObject report) throws JSONException {
        String kind = kind(latest);
        if (!kind.isEmpty()) {
            report.put("network", kind);
        }
        report.put("metered", isMetered(latest));
    }

    /** Empty where it is another kind. */
    private static String kind(NetworkCapabilities capabilities) {
        if (capabilities == null) {
            return "none";
        } else if (capabilities.hasTransport(NetworkCapabilities.TRANSPORT_ETHERNET)) {
            return "ethernet";
        } else if (capabilities.hasTransport(NetworkCapabilities.TRANSPORT_WIFI)) {
            return "wifi";
        } else if (capabilities.hasTransport(NetworkCapabilities.TRANSPORT_CELLULAR)) {
            return "cellular";
        }
        return "";
    }

    private static boolean isMetered(NetworkCapabilities capabilities) {
        return capabilities != null && !capabilities.hasCapability(NetworkCapabilities.NET_CAPABILITY_NOT_METERED);
    }

    void close() {
        manager.unregisterNetworkCallback(this);
    }
}
