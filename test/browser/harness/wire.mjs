import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/**
 * What lies between the browser and the site: TCP connections, which can be cut one by one at a chosen
 * byte, or all at once. It knows nothing of HTTP.
 */
export class Wire {
  #server;
  #target;
  #pairs = new Set();
  #down = false;
  #budget = () => Infinity;
  /** Connections that were accepted, those that were turned away included. */
  accepted = 0;
  /** Connections that were cut at their byte. */
  cuts = 0;

  /** target is the port that connections go on to. */
  static async start(target) {
    const wire = new Wire();
    wire.#target = target;
    wire.#server = createServer((socket) => wire.#take(socket)).listen(0, '127.0.0.1');
    await once(wire.#server, 'listening');
    wire.port = wire.#server.address().port;
    return wire;
  }

  get open() {
    return this.#pairs.size;
  }

  /** Cuts all connections, and lets none through until up is called. */
  down() {
    this.#down = true;
    this.cut();
  }

  up() {
    this.#down = false;
  }

  /** Cuts all connections that are open. */
  cut() {
    for (const pair of [...this.#pairs]) pair();
  }

  /** Cuts each new connection after as many bytes, both ways together, as budget returns. */
  cutAfter(budget) {
    this.#budget = budget;
  }

  async close() {
    this.#server.close();
    this.cut();
    await once(this.#server, 'close');
  }

  #take(near) {
    this.accepted++;
    near.on('error', () => {});
    if (this.#down) {
      near.resetAndDestroy();
      return;
    }
    const far = connect(this.#target, '127.0.0.1');
    far.on('error', () => {});
    const cut = () => {
      this.#pairs.delete(cut);
      near.resetAndDestroy();
      far.destroy();
    };
    this.#pairs.add(cut);
    let left = this.#budget();
    const pass = (from, to) => {
      from.on('data', (bytes) => {
        if (bytes.length > left) {
          if (!this.#pairs.has(cut)) return;
          this.cuts++;
          to.write(bytes.subarray(0, left));
          left = 0;
          // What was written goes out before the cut.
          this.#pairs.delete(cut);
          to.destroySoon();
          from.destroy();
          return;
        }
        left -= bytes.length;
        if (!to.write(bytes)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      });
      from.on('close', () => {
        this.#pairs.delete(cut);
        to.destroySoon();
      });
    };
    pass(near, far);
    pass(far, near);
  }
}
