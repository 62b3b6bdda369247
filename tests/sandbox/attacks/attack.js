// What a hostile or careless JavaScript program may try; the first argument says what. It prints what it got.
const { spawn } = require("child_process");
const fs = require("fs");
const net = require("net");

const tell = (what, action) => {
  try {
    action();
    console.log(`${what} done`);
  } catch (error) {
    console.log(`${what} ${error.code || error.message}`);
  }
};

const attacks = {
  spin: () => { for (;;); },
  sleep: () => setInterval(() => {}, 1000),
  "ignore-signals": () => {
    for (const name of ["SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU"]) process.on(name, () => {});
    for (;;);
  },
  memory: () => { const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1)); },
  output: () => { for (;;) fs.writeSync(1, "xxxxxxxxxxxxxxxx".repeat(256)); },
  disk: () => tell("disk", () => { for (let n = 0; ; n++) fs.writeFileSync(`f${n}`, Buffer.alloc(1 << 20)); }),
  recursion: () => { const deeper = () => deeper() + 1; tell("recursion", deeper); },
  show: (...paths) => { for (const path of paths) tell(path, () => console.log(fs.readFileSync(path, "latin1"))); },
  write: (path) => tell(path, () => fs.writeFileSync(path, "x")),
  environment: () => console.log(JSON.stringify(process.env)),
  connect: (port) => {
    const socket = net.connect(Number(port), "127.0.0.1");
    socket.on("error", (error) => console.log(`connect ${error.code}`));
    socket.on("connect", () => { console.log("connect done"); process.exit(0); });
    require("dns").lookup("example.org", (error) => console.log(`lookup ${error ? "failed" : "done"}`));
  },
  orphan: () => {
    const child = spawn("/bin/sleep", ["77.25"], { detached: true, stdio: "ignore" });
    child.unref();
  },
  "fork-bomb": () => {
    const again = () => { try { spawn(process.execPath, [__filename, "fork-bomb"]).on("error", () => {}); } catch { return; } };
    for (let n = 0; n < 4; n++) again();
    for (;;);
  },
  parent: () => {
    tell("parent", () => process.kill(process.ppid, "SIGKILL"));
    tell("all", () => process.kill(-1, "SIGKILL"));
  },
  folder: () => {
    tell("rm", () => fs.rmSync("/work/attack.js"));
    tell("rmdir", () => fs.rmdirSync("/work"));
  },
};

attacks[process.argv[2]](...process.argv.slice(3));
