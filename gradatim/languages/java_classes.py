"""Which Java classes of ours stand beside a candidate's?

``RUN`` is the harness that calls ``main`` and writes the mark; ``GUARD`` keeps the program from reading the token out
of the process: by ``Unsafe``, reflection into the platform, live stack frames, heap dumps, ``/proc`` or a child.
``COMPILE`` calls javac for several sources, one after
the other, and writes for each an archive of its classes and a file with what javac said. The name of a source's file
suits any public class. ``java`` compiles all, once.
"""

from __future__ import annotations

from .check import MARK

__all__ = ["COMPILE", "GUARD", "RUN"]

RUN = r"""
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

final class GradatimRun {
    public static void main(String[] words) throws Throwable {
        byte[] token = new byte[64];
        int length = new FileInputStream(FileDescriptor.in).read(token);
        Method program = Class.forName(words[0]).getDeclaredMethod("main", String[].class);
        program.setAccessible(true);
        GradatimGuard.install();
        try {
            program.invoke(null, (Object) new String[0]);
        } catch (InvocationTargetException error) {
            error.getCause().printStackTrace();
            System.exit(1);
        }
        System.out.flush();
        try (FileOutputStream file = new FileOutputStream("MARK")) {
            file.write(token, 0, Math.max(0, length));
        }
    }
}
""".replace("MARK", MARK)

GUARD = r"""
import java.nio.file.Path;
import java.security.Permission;
import java.security.Policy;
import java.security.ProtectionDomain;

/** Refuses what leads into the memory of this process, and with it to the token. */
@SuppressWarnings("removal")
final class GradatimGuard extends SecurityManager {
    private static final String[] PACKAGES = {
        "sun.misc", "sun.reflect", "jdk.internal", "com.sun.management", "com.sun.tools",
        "java.lang.management", "java.lang.instrument",
        "javax.management", "jdk.jfr",
    };
    private static final String[] RIGHTS = {
        "suppressAccessChecks", "setSecurityManager", "createSecurityManager", "createClassLoader",
        "getProtectionDomain", "setPolicy", "reflectionFactoryAccess", "loadLibrary.", "accessFlightRecorder",
        "symbolic", "hard",
    };
    private static final ClassLoader PLATFORM = ClassLoader.getPlatformClassLoader();
    private static final ProtectionDomain OWN = GradatimGuard.class.getProtectionDomain();

    /** Where the runtime has no security manager any more, nothing is refused. */
    static void install() {
        try {
            Policy.setPolicy(new Policy() {
                @Override public boolean implies(ProtectionDomain domain, Permission right) {
                    return domain == OWN || domain.getClassLoader() == PLATFORM;
                }
            });
            System.setSecurityManager(new GradatimGuard());
        } catch (UnsupportedOperationException error) {
            return;
        }
    }

    @Override public void checkPermission(Permission right) {
        String name = right.getName();
        boolean guarded = right.getClass().getName().equals("java.lang.management.ManagementPermission");
        for (String each : RIGHTS) guarded |= name.startsWith(each);
        if (guarded) super.checkPermission(right);
    }

    @Override public void checkPermission(Permission right, Object context) { checkPermission(right); }

    @Override public void checkPackageAccess(String name) {
        for (String each : PACKAGES) {
            if (name.equals(each) || name.startsWith(each + ".")) throw new SecurityException(name);
        }
    }

    @Override public void checkExec(String command) { throw new SecurityException(command); }

    @Override public void checkRead(String file) {
        if (!file.contains("proc") && !file.contains("dev") && !file.contains("..")) return;
        Path path = Path.of(file).toAbsolutePath().normalize();
        boolean harmless = path.equals(Path.of("/dev/null")) || file.endsWith("random");
        if (path.startsWith("/proc") || path.startsWith("/dev") && !harmless) throw new SecurityException(file);
    }

    @Override public void checkRead(String file, Object context) { checkRead(file); }

    @Override public void checkWrite(String file) { checkRead(file); }
}
"""

COMPILE = r"""
import java.io.*;
import java.net.URI;
import java.nio.file.*;
import java.util.*;
import java.util.zip.*;
import javax.tools.*;

final class GradatimCompile {
    public static void main(String[] words) throws IOException {
        List<String> all = Arrays.asList(words);
        List<String> options = all.subList(0, all.indexOf("--"));
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StandardJavaFileManager files = compiler.getStandardFileManager(null, null, null);
        boolean good = true;
        for (String source : all.subList(options.size() + 1, all.size())) {
            good &= compile(compiler, files, options, source);
        }
        if (!good) System.exit(1);
    }

    static boolean compile(JavaCompiler compiler, StandardJavaFileManager standard, List<String> options, String source)
            throws IOException {
        Map<String, ByteArrayOutputStream> classes = new TreeMap<>();
        JavaFileManager files = new ForwardingJavaFileManager<StandardJavaFileManager>(standard) {
            public JavaFileObject getJavaFileForOutput(
                    Location place, String name, JavaFileObject.Kind kind, FileObject from) {
                return new SimpleJavaFileObject(URI.create("memory:///" + classes.size()), kind) {
                    public OutputStream openOutputStream() {
                        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
                        classes.put(name.replace('.', '/') + ".class", bytes);
                        return bytes;
                    }
                };
            }
        };
        String text = Files.readString(Path.of(source)), name = source.substring(0, source.lastIndexOf('.'));
        URI place = URI.create("memory:///program.java");
        JavaFileObject unit = new SimpleJavaFileObject(place, JavaFileObject.Kind.SOURCE) {
            public CharSequence getCharContent(boolean lenient) { return text; }
            public boolean isNameCompatible(String simple, JavaFileObject.Kind kind) { return true; }
        };
        try (PrintWriter told = new PrintWriter(new FileWriter(name + ".txt"))) {
            if (!compiler.getTask(told, files, null, options, null, List.of(unit)).call()) return false;
        } catch (RuntimeException | StackOverflowError error) {
            return false;
        }
        OutputStream file = new BufferedOutputStream(new FileOutputStream(name + ".jar"));
        try (ZipOutputStream zip = new ZipOutputStream(file)) {
            zip.setLevel(0);
            for (Map.Entry<String, ByteArrayOutputStream> each : classes.entrySet()) {
                zip.putNextEntry(new ZipEntry(each.getKey()));
                each.getValue().writeTo(zip);
            }
        }
        return true;
    }
}
"""
