// Loaded before the emulator: it would listen on all addresses, and would outlive a test that dies.
const { Server } = require('net');
const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  const options = typeof first === 'object' ? first : { port: first };
  return listen.call(this, { ...options, host: '127.0.0.1' }, ...rest.filter((a) => typeof a === 'function'));
};
// The test holds the other end of the pipe; it closes with the test, however that ends.
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
