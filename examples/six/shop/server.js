// An HTTP server: / shows where it runs and the number of visits, which it counts in the cache, /health passes while it
// can answer, /spin keeps it from answering.
"use strict";

const http = require("node:http");
const net = require("node:net");

const port = Number(process.argv[2]);
const cachePort = Number(process.env.CACHE_PORT);

// incr adds one to a number in Redis and passes it on, null without a cache.
function incr(key, done) {
  const cache = net.connect({ host: "127.0.0.1", port: cachePort, timeout: 500 });
  let answer = "";
  cache.on("connect", () => cache.end(`INCR ${key}\r\n`));
  cache.on("data", (text) => { answer += text; });
  cache.on("timeout", () => cache.destroy());
  cache.on("error", () => {}); // it is closed next
  cache.on("close", () => done(answer.startsWith(":") ? Number(answer.slice(1)) : null));
}

function answer(response, body) {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(body) + "\n");
}

const server = http.createServer((request, response) => {
  switch (request.url) {
    case "/":
      incr("visits", (visits) => answer(response, {
        worker: process.env.HSU_WORKER_ID, pid: process.pid, folder: process.cwd(), visits,
      }));
      break;
    case "/health":
      answer(response, { healthy: true });
      break;
    case "/spin":
      for (;;);
    default:
      response.statusCode = 404;
      response.end();
  }
});

process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});

server.listen(port, "127.0.0.1", () => console.log(`serving on port ${port}`));
