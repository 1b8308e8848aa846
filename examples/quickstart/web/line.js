// A line to the server that can be cut, as a network does: what is open breaks off without a word, and
// for a while nothing new gets through. The client is not told; it has to notice and come back.

export class Line {
  #until = 0;
  #open = new Set();

  /** Cuts the line for that many milliseconds. */
  cut(ms) {
    this.#until = performance.now() + ms;
    for (const stop of this.#open) stop();
    this.#open.clear();
  }

  get isCut() {
    return performance.now() < this.#until;
  }

  /** A WebSocket class whose sockets run over this line. */
  get WebSocket() {
    const line = this;
    return class extends WebSocket {
      constructor(url, protocols) {
        if (line.isCut) return new DeadSocket();
        super(url, protocols);
        const stop = () => this.close();
        line.#open.add(stop);
        this.addEventListener('close', () => line.#open.delete(stop));
      }
    };
  }

  /** A fetch that runs over this line. */
  fetch = async (input, init = {}) => {
    if (this.isCut) throw new TypeError('the line is cut');
    const control = new AbortController();
    const stop = () => control.abort(new TypeError('the line was cut'));
    const done = () => this.#open.delete(stop);
    this.#open.add(stop);
    init.signal?.addEventListener('abort', done);
    try {
      const signal = init.signal ? AbortSignal.any([init.signal, control.signal]) : control.signal;
      const response = await fetch(input, { ...init, signal });
      if (!response.headers.get('Content-Type')?.startsWith('text/event-stream')) done();
      return response;
    } catch (error) {
      done();
      throw error;
    }
  };
}

/** A socket that fails as one does without a network. */
class DeadSocket extends EventTarget {
  readyState = WebSocket.CONNECTING;

  constructor() {
    super();
    setTimeout(() => {
      this.readyState = WebSocket.CLOSED;
      this.onerror?.(new Event('error'));
      this.onclose?.(new CloseEvent('close', { code: 1006 }));
    });
  }

  send() {}
  close() {}
}
