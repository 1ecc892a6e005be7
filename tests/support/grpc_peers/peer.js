// The peer with grpc-js. It does what peer.py does, word for word.
"use strict";

const crypto = require("crypto");
const grpc = require("@grpc/grpc-js");

const SERVICE = "tulle.test.Echo";
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
const WAIT = 60000;
const MEGABYTE = 1 << 20;
const raw = (bytes) => bytes;

function trailing() {
  const metadata = new grpc.Metadata();
  metadata.set("t-ascii", "t");
  metadata.set("t-bin", Buffer.from([0, 255]));
  return metadata;
}

async function digest(stream) {
  const summed = crypto.createHash("sha256");
  let count = 0;
  let bytes = 0;
  for await (const message of stream) {
    count += 1;
    bytes += message.length;
    summed.update(message);
  }
  return { count, bytes, sha256: summed.digest("hex") };
}

const taken = (stream) => new Promise((resolve) => stream.once("drain", resolve));

function method(name, requestStream, responseStream) {
  const same = { requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw };
  return { path: `/${SERVICE}/${name}`, requestStream, responseStream, ...same };
}

const METHODS = {
  Echo: method("Echo", false, false),
  Fail: method("Fail", false, false),
  Down: method("Down", false, true),
  Up: method("Up", true, false),
  Both: method("Both", true, true),
  Hang: method("Hang", false, true),
  Seen: method("Seen", false, false),
};

function serve(port) {
  const cancelled = new Set();
  const server = new grpc.Server();
  server.addService(METHODS, {
    Echo(call, done) {
      const own = new grpc.Metadata();
      for (const key of Object.keys(call.metadata.getMap())) {
        if (key.startsWith("x-test")) call.metadata.get(key).forEach((value) => own.add(key, value));
      }
      call.sendMetadata(own);
      done(null, call.request, trailing());
    },
    Fail(call, done) {
      const asked = JSON.parse(call.request);
      done({ code: asked.code, details: asked.message, metadata: trailing() });
    },
    async Down(call) {
      const asked = JSON.parse(call.request);
      for (let n = 0; n < asked.count; n += 1) {
        if (!call.write(Buffer.alloc(asked.size, n % 256))) await taken(call);
      }
      if (asked.code) call.emit("error", { code: asked.code, details: "enough", metadata: trailing() });
      else call.end();
    },
    async Up(call, done) {
      done(null, Buffer.from(JSON.stringify(await digest(call))));
    },
    Both(call) {
      call.on("data", (message) => call.write(message));
      call.on("end", () => call.end());
    },
    Hang(call) {
      call.on("cancelled", () => cancelled.add(call.request.toString()));
      call.write(Buffer.from("there"));
    },
    Seen(call, done) {
      done(null, Buffer.from(cancelled.has(call.request.toString()) ? "1" : "0"));
    },
  });
  server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error, bound) => {
    if (error) throw error;
    console.log(bound);
  });
  process.on("SIGTERM", () => server.tryShutdown(() => process.exit(0)));
}

class Caller {
  constructor(client) {
    this.client = client;
  }

  unaryCall(name, request, metadata = new grpc.Metadata(), options = {}) {
    return new Promise((resolve) => {
      const found = {};
      const call = this.client.makeUnaryRequest(
        `/${SERVICE}/${name}`, raw, raw, request, metadata, options,
        (error, answer) => { found.error = error; found.answer = answer; });
      call.on("metadata", (initial) => { found.initial = initial; });
      call.on("status", (status) => { found.status = status; setImmediate(() => resolve(found)); });
    });
  }

  down(name, request, options = {}) {
    return this.client.makeServerStreamRequest(`/${SERVICE}/${name}`, raw, raw, request, new grpc.Metadata(), options);
  }

  both() {
    return this.client.makeBidiStreamRequest(`/${SERVICE}/Both`, raw, raw, new grpc.Metadata());
  }

  async send(count, size) {
    let call;
    const answered = new Promise((resolve, reject) => {
      call = this.client.makeClientStreamRequest(`/${SERVICE}/Up`, raw, raw, new grpc.Metadata(), {},
        (error, answer) => (error ? reject(error) : resolve(JSON.parse(answer))));
    });
    for (let n = 0; n < count; n += 1) {
      if (!call.write(Buffer.alloc(size, n % 256))) await taken(call);
    }
    call.end();
    return answered;
  }

  async unary() {
    const sent = new grpc.Metadata();
    sent.set("x-test-ascii", "a, b");
    sent.set("x-test-bin", BINARY);
    sent.add("x-test-twice", "1");
    sent.add("x-test-twice", "2");
    const found = await this.unaryCall("Echo", Buffer.from("hello"), sent);
    return {
      answer: String(found.answer),
      initial: shown(found.initial, "x-test"),
      trailing: shown(found.status.metadata, "t-"),
      code: found.status.code,
    };
  }

  async empty() {
    return (await this.unaryCall("Echo", Buffer.alloc(0))).answer.length;
  }

  server_stream() {
    return digest(this.down("Down", asked({ count: 5, size: 10 })));
  }

  client_stream() {
    return this.send(5, 10);
  }

  async both_ways() {
    const call = this.both();
    const status = ended(call);
    const got = [];
    const messages = call[Symbol.asyncIterator]();
    for (let n = 0; n < 5; n += 1) {
      call.write(Buffer.from(String(n)));
      got.push(String((await messages.next()).value));
    }
    call.end();
    await messages.next();
    return [...got, (await status).code];
  }

  async trailers_only() {
    return failed(await this.unaryCall("Fail", asked({ code: 5, message: "no" })));
  }

  async statuses() {
    const found = [];
    for (let code = 1; code < 17; code += 1) {
      found.push(failed(await this.unaryCall("Fail", asked({ code, message: `100 % ${code} \u00fc\u4e16 \n` }))));
    }
    return found;
  }

  async unknown_method() {
    return (await this.unaryCall("Unknown", Buffer.alloc(0))).status.code;
  }

  async failing_stream() {
    const call = this.down("Down", asked({ count: 3, size: 10, code: 1 }));
    let count = 0;
    call.on("data", () => { count += 1; });
    const status = await ended(call);
    return [count, status.code, status.details];
  }

  async deadline() {
    const call = this.down("Hang", Buffer.from("deadline"), { deadline: Date.now() + 500 });
    call.on("data", () => {});
    return [(await ended(call)).code, await this.wasSeen("deadline")];
  }

  async cancelled() {
    const call = this.down("Hang", Buffer.from("cancelled"));
    const status = ended(call);
    const first = await new Promise((resolve) => call.once("data", resolve));
    call.cancel();
    await status;
    return [String(first), await this.wasSeen("cancelled")];
  }

  large_down() {
    return digest(this.down("Down", asked({ count: 100, size: MEGABYTE })));
  }

  large_up() {
    return this.send(100, MEGABYTE);
  }

  async many() {
    const calls = Array.from({ length: 1000 }, () => this.both());
    const statuses = calls.map(ended);
    const answers = await Promise.all(calls.map((call, n) => new Promise((resolve) => {
      call.once("data", resolve);
      call.once("status", () => resolve(null));
      call.write(Buffer.from(String(n)));
    })));
    calls.forEach((call) => { call.resume(); call.end(); });
    const codes = (await Promise.all(statuses)).map((status) => status.code);
    return [answers.filter((answer, n) => String(answer) === String(n)).length, codes.filter((code) => !code).length];
  }

  async loop() {
    let going = true;
    process.stdin.on("end", () => { going = false; });
    process.stdin.resume();
    let good = 0;
    const bad = [];
    while (going) {
      const { status } = await this.unaryCall("Echo", Buffer.from("x"), undefined, { deadline: Date.now() + WAIT });
      if (status.code) {
        bad.push(`${grpc.status[status.code]}: ${status.details}`);
        continue;
      }
      good += 1;
      if (good === 20) console.log("under way");
    }
    return [good, bad];
  }

  async wasSeen(what) {
    const deadline = Date.now() + WAIT;
    while (Date.now() < deadline) {
      if (String((await this.unaryCall("Seen", Buffer.from(what))).answer) === "1") return true;
      await new Promise((resolve) => setTimeout(resolve, 20)); // polls another process
    }
    return false;
  }
}

const asked = (what) => Buffer.from(JSON.stringify(what));

function shown(metadata, prefix) {
  const found = [];
  for (const key of Object.keys(metadata.getMap())) {
    if (!key.startsWith(prefix)) continue;
    const values = metadata.get(key).map((value) => (Buffer.isBuffer(value) ? value.toString("hex") : value));
    found.push([key, values.join(", ")]);
  }
  return found.sort();
}

function failed(found) {
  const { status } = found;
  return { code: status.code, message: status.details, trailing: shown(status.metadata, "t-") };
}

function ended(call) {
  call.on("error", () => {}); // Its status says it.
  return new Promise((resolve) => call.on("status", resolve));
}

async function call(port, scenarios) {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const caller = new Caller(client);
  for (const name of scenarios) {
    let result;
    try {
      result = await caller[name]();
    } catch (error) {
      result = `${error.name}: ${error.message}`;
    }
    console.log(JSON.stringify([name, result]));
  }
  client.close();
}

if (process.argv[2] === "server") serve(Number(process.argv[3]));
else call(Number(process.argv[3]), process.argv.slice(4));
