// Signatures alone, those of Android 7 that the app uses besides Android 6.0's: for javac, and never packed.
package android.net;

public class ConnectivityManager {
    ConnectivityManager() {}

    public native Network getActiveNetwork();

    public native NetworkCapabilities getNetworkCapabilities(Network network);

    public native void registerDefaultNetworkCallback(NetworkCallback callback);

    public native void unregisterNetworkCallback(NetworkCallback callback);

    public static class NetworkCallback {
        public NetworkCallback() {}

        public native void onCapabilitiesChanged(Network network, NetworkCapabilities capabilities);

        public native void onLost(Network network);
    }
}
