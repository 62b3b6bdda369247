import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** What a hostile or careless Java program may try; the first argument says what. It prints what it got. */
public class Attack {
    interface Action {
        void run() throws Exception;
    }

    static void tell(String what, Action action) {
        try {
            action.run();
            System.out.println(what + " done");
        } catch (Throwable error) {
            System.out.println(what + " " + error.getClass().getSimpleName());
        }
    }

    static int deeper(int depth) {
        return deeper(depth + 1) + 1;
    }

    static void threads() throws Exception {
        int count = 0;
        try {
            for (; count < 10000; count++) {
                Thread thread = new Thread(() -> {
                    try {
                        Thread.sleep(100000);
                    } catch (InterruptedException error) {
                        return;
                    }
                });
                thread.setDaemon(true);
                thread.start();
            }
        } catch (OutOfMemoryError error) {
            System.out.println("threads " + count);
            System.out.flush();
            Runtime.getRuntime().halt(0);
        }
    }

    static void memory() {
        List<byte[]> kept = new ArrayList<>();
        while (true) {
            byte[] block = new byte[1 << 20];
            Arrays.fill(block, (byte) 1);
            kept.add(block);
        }
    }

    static void direct() {
        List<java.nio.ByteBuffer> kept = new ArrayList<>();
        while (true) {
            java.nio.ByteBuffer block = java.nio.ByteBuffer.allocateDirect(1 << 20);
            for (int place = 0; place < 1 << 20; place += 4096) block.put(place, (byte) 1);
            kept.add(block);
        }
    }

    public static void main(String[] words) throws Exception {
        switch (words[0]) {
            case "spin": while (true) { if (words.length > 99) break; } break;
            case "sleep": Thread.sleep(100000); break;
            case "memory": memory(); break;
            case "direct": direct(); break;
            case "threads": threads(); break;
            case "recursion": tell("recursion", () -> deeper(0)); break;
            case "output": while (true) System.out.print("xxxxxxxxxxxxxxxx");
            case "environment": System.out.println(System.getenv()); break;
            case "read": tell(words[1], () -> System.out.println(Files.readString(Path.of(words[1])))); break;
            case "write": tell(words[1], () -> Files.writeString(Path.of(words[1]), "x")); break;
            case "disk":
                tell("disk", () -> { for (int n = 0; ; n++) Files.write(Path.of("f" + n), new byte[1 << 20]); });
                break;
            case "connect":
                tell("connect", () -> new Socket("127.0.0.1", Integer.parseInt(words[1])).close());
                tell("lookup", () -> InetAddress.getByName("example.org"));
                break;
            case "orphan":
                new ProcessBuilder("/usr/bin/setsid", "/bin/sleep", "77.25").start();
                break;
            case "parent":
                new ProcessBuilder("/bin/sh", "-c", "kill -9 1; kill -9 $PPID; kill -9 -1").inheritIO().start().waitFor();
                break;
            case "shutdown":
                Runtime.getRuntime().addShutdownHook(new Thread(() -> { while (true) { if (words.length > 99) break; } }));
                System.exit(0);
                break;
            default: System.exit(99);
        }
    }
}
