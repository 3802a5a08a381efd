// What the person chose, kept over restarts.
package ai.polyphony;

import android.content.Context;
import android.content.SharedPreferences;
import android.os.Build;
import java.security.SecureRandom;
import java.util.Locale;

final class Choices {
    private static final String STARTED = "started";
    private static final String PAUSED = "paused";
    private static final String JOINED = "joined";
    private static final String LINK = "link";
    private static final String NAME = "name";
    /** A DNS label has 63 letters at most; what follows this takes five. */
    private static final int LONGEST_MODEL = 40;

    private final SharedPreferences kept;

    Choices(Context context) {
        kept = context.getSharedPreferences("choices", Context.MODE_PRIVATE);
    }

    /** Whether it is to run, and so to start again at boot. */
    boolean isStarted() {
        return kept.getBoolean(STARTED, false);
    }

    void setStarted(boolean started) {
        kept.edit().putBoolean(STARTED, started).apply();
    }

    boolean isPaused() {
        return kept.getBoolean(PAUSED, false);
    }

    void setPaused(boolean paused) {
        kept.edit().putBoolean(PAUSED, paused).apply();
    }

    /** Whether a host once took this phone in, so that it needs no link. */
    boolean hasJoined() {
        return kept.getBoolean(JOINED, false);
    }

    /** A link that did not lead anywhere yet: joining goes on with it when Android ended the process in between. Null where there is none. */
    String link() {
        return kept.getString(LINK, null);
    }

    void keepLink(String link) {
        kept.edit().putString(LINK, link).apply();
    }

    /** A link holds a token: it is not kept for longer than it is needed, and one that failed not at all. */
    void forgetLink() {
        kept.edit().remove(LINK).apply();
    }

    void setJoined() {
        if (hasJoined() && link() == null) {
            return;
        }
        kept.edit().putBoolean(JOINED, true).remove(LINK).apply();
    }

    /** Whether the person has been asked this, now counted as asked: nobody is asked twice. */
    boolean askedBefore(String what) {
        String key = "asked-" + what;
        boolean asked = kept.getBoolean(key, false);
        kept.edit().putBoolean(key, true).apply();
        return asked;
    }

    /** This phone's name at its host, a DNS label: its model and four digits of chance, made once, since shelves hold many of one model. */
    String phoneName() {
        String name = kept.getString(NAME, null);
        if (name == null) {
            name = named(Build.MODEL, new SecureRandom().nextInt(1 << 16));
            kept.edit().putString(NAME, name).apply();
        }
        return name;
    }

    private static String named(String model, int chance) {
        String label = model.toLowerCase(Locale.ROOT).replaceAll("[^a-z0-9]+", "-");
        label = label.substring(0, Math.min(label.length(), LONGEST_MODEL)).replaceAll("^-+|-+$", "");
        return String.format(Locale.ROOT, "%s-%04x", label.isEmpty() ? "phone" : label, chance);
    }
}
