// Runs one emulator on a free port of loopback, says where, and ends when its standard input does:
// so it never outlives the process that started it.
const host = '127.0.0.1';

const emulators = {
  async sqs() {
    const { buildApp } = await import('fauxqs');
    const app = buildApp({ logger: false, host });
    await app.listen({ host, port: 0 });
    return app.server.address().port;
  },
  async dynamodb() {
    const { default: dynalite } = await import('dynalite');
    const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
    await new Promise((resolve, reject) => server.on('error', reject).listen(0, host, resolve));
    return server.address().port;
  },
};

process.stdin.on('end', () => process.exit()).resume();
const port = await emulators[process.argv[2]]();
console.log(`http://${host}:${port}`);
