"""Java: javac's compiler in a process that starts fast, then java; tests are a class ``Main`` that throws.

Compilation is the cost (measured, short program: javac 0.6 s of CPU; here 0.35 s): the compiler is called through
``javax.tools`` with a class-data archive of itself, made once, and without the optimising compiler, which never pays
off in so short a run. ``COMPILE`` compiles several sources one after the other and writes for each an archive of its
classes, which is what runs, and a file with javac's output. The name of a source file suits any public class. Programs
run the same way, with assertions on (``-ea``).

The harness ``RUN`` takes the nonce, calls ``Main.main``, and writes the nonce when it returned. The nonce is a local
variable of a method of another class, and ``GUARD``, a security manager (which runtimes up to 23 have), refuses the
ways into the memory of the process: ``Unsafe``, reflection into the platform, live stack frames, heap dumps, ``/proc``,
a child process. A candidate's class that would hide one of the tests', such as its own ``Arrays``, does not compile.
"""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ToolchainMissing
from ..sandbox.limits import MIB, Execution, Limits
from .language import MARK, Built, Examined, Fault, Language, Program, Runner, Start, compile_limits, unusable
from .toolchain import cached_folder, compile_once, find, mounts, need, store, stored, tool_version

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
        try (PrintWriter output = new PrintWriter(new FileWriter(name + ".txt"))) {
            if (!compiler.getTask(output, files, null, options, null, List.of(unit)).call()) return false;
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


ADVICE = "apt-get install default-jdk-headless"
SUPPORT, PROGRAM = "/support", "/program"
CLASSES = "classes.jar"
FAST = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto")

GUARDED = {
    "java.util": "ArrayList Arrays Collections HashMap HashSet List Map Objects Optional Set",
    "java.lang": "AssertionError Boolean Character Double Exception Float Integer Iterable Long Math Object "
    "RuntimeException String System",
}
BATCH = 16
"""Programs per process of the compiler."""

WARM_UP = """import java.util.*;
class Solution {
    List<String> f(int[] a) { return Collections.singletonList("sum " + Arrays.stream(a).map(x -> 2 * x).sum()); }
}"""

_CLASS = re.compile(r"\b(?:class|interface|enum|record)\s++(\w++)|\bstatic\s++(?:final\s++)?void\s++(main)\s*+\(")
_DIAGNOSTIC = re.compile(
    r"^[^:\n]+\.java:(?P<line>\d{1,9}): (?P<kind>error|warning): (?:\[(?P<rule>\w+)\] )?(?P<message>.*)$", re.MULTILINE
)
_SKIPPED = re.compile(
    r"//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)|\"{3}(?:[^\"\\]|\\[\s\S]|\"(?!\"\"))*+(?:\"{3})?"
    r"|\"(?:[^\"\\\n]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?"
)
"""Comments, text blocks, strings and characters. An unterminated one extends as far as possible, so that each position
is read once."""


def _grammar() -> Any:
    import tree_sitter_java

    return tree_sitter_java.language()


def missing() -> str | None:
    """None when a JDK is installed, else the command that installs it. A runtime without compiler is not enough."""
    return None if find("java") and find("javac") else ADVICE


def version() -> str:
    """The compiler's version."""
    return tool_version((str(_javac()), "-version"))


def _javac() -> Path:
    return need("Java", find("javac") if find("java") else None, ADVICE)


def _java() -> Path:
    """The runtime of the compiler's JDK; another one might not read its classes."""
    return _javac().with_name("java")


def assemble(prompt: str, completion: str, tests: str, *, setup: str = "") -> Program:
    """The prompt with its completion, and the class ``Main`` with the tests.

    Classes of ``GUARDED`` that the tests use are imported by name, so that a class of the candidate that would hide one
    does not compile. Any number of classes may be public: the compiler accepts the file's name for each.
    """
    imported = "".join(
        f"import {package}.{name}; "
        for package, names in GUARDED.items()
        for name in names.split()
        if re.search(rf"\b{name}\b", tests)
    )
    code = f"{setup}{prompt}{completion}"
    packaged = re.match(r"\s*+package\b", _SKIPPED.sub(" ", code))
    return Program(code if packaged else imported + code, tests)


def _main_class(program: Program) -> str | None:
    """The class whose ``main`` is started: the tests' if they have one."""
    return _last_main(program.tests) or _last_main(program.code)


def _last_main(source: str) -> str | None:
    """The class that contains the last ``main`` of ``source``."""
    last, owner = None, None
    for match in _CLASS.finditer(_SKIPPED.sub(" ", source)):
        if match[2]:
            owner = last
        else:
            last = match[1]
    return owner


def runnable(code: str) -> bool:
    """Whether ``code`` has a class with ``main``."""
    return _last_main(code) is not None


OPTIONS = ("-proc:none", "-g:none", "-nowarn", "-implicit:none", "-Xmaxerrs", "3")


def build(sandbox: Runner, program: Program) -> Built:
    """An archive of classes in a folder of the cache, or the compiler's errors."""
    if _main_class(program) is None:
        return Built(None, (Fault(0, 0, "there is no class with a method main"),))

    def run() -> Execution:
        # The output of javac is a file per program, so that programs compiled together do not mix.
        done = _compile(sandbox, (program.text,), OPTIONS)
        return replace(done, stderr=done.files.get("0.txt", done.stderr))

    return compile_once(_key(program), run, ("0.jar",), _errors, lambda files: {CLASSES: files["0.jar"]})


def prepare(sandbox: Runner, programs: Sequence[Program]) -> None:
    """Compile several programs in one process of the compiler, into the cache (measured: a quarter of the time each).

    Programs that do not compile, and all when the process is stopped, are compiled one by one by ``build``.
    """
    new = {program.text: program for program in programs if stored("compiled", _key(program)) is None}
    compilable = [program for text, program in new.items() if _main_class(program) is not None and not unusable(text)]
    for first in range(0, len(compilable), BATCH):
        batch = compilable[first : first + BATCH]
        done = _compile(sandbox, tuple(program.text for program in batch), OPTIONS)
        for index, program in enumerate(batch):
            if packed := done.files.get(f"{index}.jar"):
                store(_key(program), {CLASSES: packed})


def _key(program: Program) -> tuple[str, ...]:
    return ("Java", version(), COMPILE, *OPTIONS, program.text)


def _compile(sandbox: Runner, sources: Sequence[str], options: tuple[str, ...]) -> Execution:
    support = _support()
    files = {f"{index}.java": source.encode() for index, source in enumerate(sources)}
    command = [
        str(_java()),
        *FAST,
        "-Xmx512m",
        f"-XX:SharedArchiveFile={SUPPORT}/compile.jsa",
        "-cp",
        f"{SUPPORT}/compile.jar",
    ]
    return sandbox.run(
        [*command, "GradatimCompile", *options, "--", *files],
        files=files,
        limits=fit(compile_limits()),
        mounts={support: SUPPORT, **mounts(_java())},
        collect=tuple(f"{index}.{kind}" for index in range(len(sources)) for kind in ("jar", "txt")),
    )


def start(built: Built, program: Program) -> Start:
    """Run the class with ``main`` through the harness."""
    if built.folder is None:
        raise ValueError("a program that was not built cannot be started")
    support, name = _support(), _main_class(program) or "Main"
    path = f"{SUPPORT}/run.jar:{PROGRAM}/{CLASSES}"
    command = (str(_java()), *FAST, *_guarded(), "-Xmx640m", "-Xss16m", "-ea", "-cp", path, "GradatimRun", name)
    return Start(command, mounts={built.folder: PROGRAM, support: SUPPORT, **mounts(_java())})


def _guarded() -> tuple[str, ...]:
    """Options for the guard. Runtimes 18-23 need an option to allow a security manager; those from 24 on have none."""
    first = version().split(".")[0]
    allow = ("-Djava.security.manager=allow",) if first.isdecimal() and 18 <= int(first) < 24 else ()
    return ("-XX:+DisableAttachMechanism", *allow)


def examine(sandbox: Runner, code: str) -> Examined:
    """javac's errors and warnings (``-Xlint:all``)."""
    done = _compile(sandbox, (code,), ("-proc:none", "-g:none", "-implicit:none", "-Xlint:all"))
    output = done.files.get("0.txt", b"") or done.stderr
    diagnostics = [(match["kind"], _fault(match)) for match in _DIAGNOSTIC.finditer(output.decode("utf-8", "replace"))]
    errors = tuple(fault for kind, fault in diagnostics if kind == "error")
    if not done.ok and not errors:
        errors = _errors(output)
    return Examined(errors, tuple(fault for kind, fault in diagnostics if kind == "warning"))


def _errors(stderr: bytes) -> tuple[Fault, ...]:
    text = stderr.decode("utf-8", "replace")
    errors = tuple(_fault(match) for match in _DIAGNOSTIC.finditer(text) if match["kind"] == "error")
    return errors or (Fault(0, 0, text.strip().split("\n")[0] or "the compiler failed without a message"),)


def _fault(match: re.Match[str]) -> Fault:
    return Fault(int(match["line"]), 0, match["message"], match["rule"] or match["kind"])


def _support() -> Path:
    """The harness classes, and the archives for their fast start."""

    def fill(folder: Path) -> None:
        for name, texts in {"Compile": {"Compile": COMPILE}, "Run": {"Run": RUN, "Guard": GUARD}}.items():
            classes = folder / name
            classes.mkdir()
            for part, text in texts.items():
                (classes / f"Gradatim{part}.java").write_text(text)
            sources = [f"{name}/Gradatim{part}.java" for part in texts]
            _make(folder, [str(_javac()), "-proc:none", "-nowarn", "-d", name, *sources])
            with zipfile.ZipFile(folder / f"{name.lower()}.jar", "w") as jar:
                for compiled in sorted(classes.glob("*.class")):
                    jar.write(compiled, compiled.name)
        (folder / "Warm.java").write_text(WARM_UP)
        # An archive recorded without a class path is a prefix of any, so that it fits every user.
        warm = [
            str(_java()),
            *FAST,
            "-XX:ArchiveClassesAtExit=compile.jsa",
            "-m",
            "jdk.compiler/com.sun.tools.javac.Main",
        ]
        _make(folder, [*warm, "-proc:none", "-d", "warm", "Warm.java"])

    return cached_folder("support", ("Java", version(), COMPILE, RUN, GUARD, WARM_UP, *FAST), fill)


def _make(folder: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainMissing(
            "the toolchain of Java cannot compile a small program", given=done.stderr[:300], hint=ADVICE
        )


def fit(limits: Limits) -> Limits:
    """Limits for the virtual machine, which maps far more memory than it uses and starts threads."""
    return replace(
        limits,
        address_space=False,
        processes=max(64, limits.processes),
        memory_bytes=max(limits.memory_bytes, 768 * MIB),
    )


JAVA = Language(
    name="java",
    title="Java",
    aliases=("jdk", "java8", "java11", "java17", "java21"),
    suffix=".java",
    grammar=_grammar,
    openers=r"^(?:import\s+(?:static\s+)?[\w.]+|package\s+[\w.]+;|(?:public\s+|final\s+|abstract\s+)*(?:class|interface|enum|record)\s+\w"
    r"|\s*+(?:public|private|protected|static)\s++[\w<>\[\], ]++\()",
    # Every repetition is bounded, because the text is a model's output.
    definition=r"^[ \t]*(?!(?:return|new|else|throw)\b)\w[\w<>\[\],.? \t]{0,200}(?<=[ \t>\]])"
    r"(\w{1,200})[ \t]{0,20}\([^;{}()]{0,2000}\)[^;{}()=]{0,200}\{",
    missing=missing,
    version=version,
    assemble=assemble,
    build=build,
    prepare=prepare,
    start=start,
    examine=examine,
    runnable=runnable,
    fit=fit,
)
