// Join links: told from other text. What is in one is the agent's business.
package ai.polyphony;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

final class JoinLink {
    private static final Pattern LINK = Pattern.compile("polyphony://\\S+");

    private JoinLink() {}

    /** The first one in a text: people paste whole messages. Null where there is none. */
    static String in(CharSequence text) {
        Matcher found = LINK.matcher(text == null ? "" : text);
        return found.find() ? found.group() : null;
    }
}
