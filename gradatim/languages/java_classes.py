"""Which Java classes of ours stand beside a candidate's?

``RUN`` is the harness that calls ``main`` and writes the mark. ``COMPILE`` calls javac for several sources, one after
the other, and writes for each a zip of its classes and a file with what javac said. ``java`` compiles both, once.
"""

from __future__ import annotations

from .check import MARK

__all__ = ["COMPILE", "RUN"]

RUN = r"""
import java.io.FileOutputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;

final class GradatimRun {
    public static void main(String[] words) throws Throwable {
        byte[] token = System.in.readNBytes(64);
        Method program = Class.forName(words[0]).getDeclaredMethod("main", String[].class);
        program.setAccessible(true);
        try {
            program.invoke(null, (Object) new String[0]);
        } catch (InvocationTargetException error) {
            error.getCause().printStackTrace();
            System.exit(1);
        }
        System.out.flush();
        try (FileOutputStream file = new FileOutputStream("MARK")) {
            file.write(token);
        }
    }
}
""".replace("MARK", MARK)

COMPILE = r"""
import java.io.*;
import java.net.URI;
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
        String folder = source.substring(0, source.indexOf('/'));
        try (PrintWriter told = new PrintWriter(new FileWriter(folder + ".txt"))) {
            Iterable<? extends JavaFileObject> sources = standard.getJavaFileObjects(source);
            if (!compiler.getTask(told, files, null, options, null, sources).call()) return false;
        } catch (RuntimeException | StackOverflowError error) {
            return false;
        }
        OutputStream file = new BufferedOutputStream(new FileOutputStream(folder + ".zip"));
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
