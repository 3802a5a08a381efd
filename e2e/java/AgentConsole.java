// Calls the app's agent as it is told on its input, one call a line, and writes what came of each: the app's place in tests.
package ai.polyphony;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Paths;

final class AgentConsole {
    private AgentConsole() {}

    public static void main(String[] arguments) throws Exception {
        if (!Agent.isThere()) {
            throw new IllegalStateException("no library in " + System.getProperty("java.library.path"));
        }
        BufferedReader calls = new BufferedReader(new InputStreamReader(System.in));
        for (String call = calls.readLine(); call != null; call = calls.readLine()) {
            System.out.println("> " + call(call.split(" ", 4)));
            System.out.flush();
        }
    }

    private static String call(String[] words) throws Exception {
        switch (words[0]) {
            case "start":
                return Agent.start(words[1], words[2], words[3].equals("-") ? null : words[3]);
            case "fault":
                return Agent.linkFault(words[1]);
            case "stop":
                Agent.stop(Boolean.parseBoolean(words[1]));
                return "stopped";
            case "tell":
                Agent.tell(words[1]);
                return "told";
            case "status":
                return Agent.status();
            case "code":
                byte[] luma = Files.readAllBytes(Paths.get(words[1]));
                return Agent.readCode(luma, Integer.parseInt(words[2]), Integer.parseInt(words[3]));
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }
}
