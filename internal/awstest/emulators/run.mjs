// Runs one emulator on a port of loopback, a free one where none is named, says where, and ends when
// its standard input does: so it never outlives the process that started it.
const host = '127.0.0.1';
const [service, wanted = '0'] = process.argv.slice(2);

const emulators = {
  async sqs() {
    const { buildApp } = await import('fauxqs');
    const app = buildApp({ logger: false, host });
    await app.listen({ host, port: Number(wanted) });
    return app.server.address().port;
  },
  async dynamodb() {
    const { default: dynalite } = await import('dynalite');
    const server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 });
    await new Promise((resolve, reject) => server.on('error', reject).listen(Number(wanted), host, resolve));
    return server.address().port;
  },
};

process.on('SIGINT', () => {}); // Ctrl-C is for who started this, and may need it to stop well
// dynalite throws when a client goes away within a request, which clients that are killed do.
process.on('uncaughtException', (err) => {
  if (err.code !== 'ECONNRESET') {
    console.error(err);
    process.exit(1);
  }
});
process.stdin.on('end', () => process.exit()).resume();
const port = await emulators[service]();
console.log(`http://${host}:${port}`);
