// Loaded before the emulator, which would outlive a test that dies: the test holds the other end of the pipe, which
// closes with the test, however that ends.
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
