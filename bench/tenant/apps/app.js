require("http").createServer((_, answer) => {
  answer.setHeader("Content-Length", 5);
  answer.end("hello");
}).listen(process.env.PORT, "127.0.0.1");
