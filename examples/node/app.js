// A shopping list for one customer, in one JSON file. It has no idea of tenants:
// it reads DATA_DIR and PORT. No dependencies, Node.js 18 or newer.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const MAX_BODY = 64 * 1024; // bytes
const file = path.join(process.env.DATA_DIR, "notes.json");
const notes = load();

function load() {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (err) {
    if (err.code === "ENOENT") return [];
    throw err; // a damaged file is no reason to overwrite it
  }
}

// save writes a new file and puts it in place, so that a crash leaves the old
// list or the new one. It is synchronous: two requests never write at once.
function save(list) {
  const partial = `${file}.new`;
  const fd = fs.openSync(partial, "w", 0o600);
  try {
    fs.writeFileSync(fd, JSON.stringify(list));
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(partial, file);
}

function answer(res, status, value) {
  const body = `${JSON.stringify(value)}\n`;
  res.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
  res.end(body);
}

async function readBody(req) {
  const chunks = [];
  let size = 0;
  for await (const chunk of req) {
    size += chunk.length;
    if (size > MAX_BODY) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8").trim();
}

async function add(req, res) {
  const text = await readBody(req);
  if (text === null) return answer(res, 413, { error: "the note is too long" });
  if (text === "") return answer(res, 400, { error: "the note is empty" });
  const note = { id: notes.length + 1, text };
  save([...notes, note]);
  notes.push(note);
  answer(res, 201, note);
}

const server = http.createServer((req, res) => {
  const route = `${req.method} ${req.url}`;
  if (route === "GET /health") return answer(res, 200, { status: "ok" });
  if (route === "GET /" || route === "GET /notes") return answer(res, 200, [...notes].reverse());
  if (route !== "POST /notes") return answer(res, 404, { error: "there is /notes and /health" });
  add(req, res).catch((err) => {
    console.error(err);
    if (!res.headersSent) answer(res, 500, { error: "the note could not be kept" });
  });
});

// The connections that idle are kept alive by whoever is in front: close them, or
// the process would stay until they time out.
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections?.(); // Node.js 18.2
});

// Longer than whoever is in front keeps a connection, so that it is never this side
// that closes one just as a request goes out on it.
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env.PORT), "127.0.0.1", () => console.log(`listening on port ${process.env.PORT}`));
