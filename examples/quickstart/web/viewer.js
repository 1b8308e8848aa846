import { Line } from './line.js';
import { StreamerClient } from './streamer.js';

const url = new URL('ws', location.href.replace(/^http/, 'ws').replace(/#.*/, ''));
const rows = 8;
const cutFor = 2000;
const number = new Intl.NumberFormat('en');
const names = { websocket: 'WebSocket', sse: 'server-sent events', poll: 'long poll' };
const retries = {
  error: 'The attempt failed',
  lost: 'The worker was lost',
  shutdown: 'The server is shutting down',
};

/** One viewer: a client with a line of its own, and a panel that shows the request it follows. */
export class Viewer {
  #line = new Line();
  #client;
  #handle;
  #panel;
  #changed;
  #known;
  #drawing = false;
  #view = nothing();

  /** changed is called after every change, known with the id of a request that the server has. */
  constructor(name, changed = () => {}, known = () => {}) {
    this.#changed = changed;
    this.#known = known;
    const content = document.querySelector('#viewer').content.cloneNode(true);
    this.#panel = content.querySelector('section');
    const heading = this.#$('h2');
    heading.textContent = name;
    heading.id = `viewer-${document.querySelectorAll('.viewer').length}`;
    this.#panel.setAttribute('aria-labelledby', heading.id);
    this.#$('progress').setAttribute('aria-label', `Progress, ${name.toLowerCase()}`);
    for (let i = 0; i < rows; i++) {
      const row = this.#$('tbody').insertRow();
      for (let j = 0; j < 4; j++) row.insertCell();
      row.cells[1].append(document.createElement('bdi'));
    }
    this.#$('select').addEventListener('change', () => this.#connect());
    this.#$('.cut').addEventListener('click', () => this.#cut());
    document.querySelector('#viewers').append(this.#panel);
    this.#connect();
  }

  get id() {
    return this.#view.id;
  }

  get busy() {
    return this.#view.id !== '' && !this.#view.over;
  }

  get canceling() {
    return this.#view.status === 'Canceling';
  }

  start(payload) {
    this.#handle?.detach();
    const handle = this.#client.submit('inventory', payload);
    this.#view = { ...nothing(), id: handle.id, payload, status: 'Sent to the server', started: performance.now() };
    this.#follow(handle);
    return handle.id;
  }

  attach(id) {
    this.#handle?.detach();
    this.#view = { ...nothing(), id, status: 'Looking the request up' };
    this.#follow(this.#client.attach(id));
  }

  cancel() {
    return this.#handle.cancel('somebody pressed Cancel');
  }

  close() {
    this.#client.close();
    this.#panel.remove();
  }

  /** Makes a client for the chosen transport. A request that is followed goes on where it was. */
  #connect() {
    const before = this.#client;
    this.#client = new StreamerClient(url, {
      transport: this.#$('select').value,
      WebSocket: this.#line.WebSocket,
      fetch: this.#line.fetch,
      onState: () => this.#draw(),
    });
    if (this.busy) {
      const { id, payload, epoch, seq: after } = this.#view;
      this.#handle.detach();
      // What the server has not answered is sent again: with the same id it is the same request.
      const unanswered = payload && !epoch;
      this.#follow(
        unanswered
          ? this.#client.submit('inventory', payload, { id })
          : this.#client.attach(id, epoch ? { epoch, after } : {}),
      );
    }
    before?.close();
    this.#draw();
  }

  #cut() {
    const { seq } = this.#view;
    this.#line.cut(cutFor);
    this.#view.cut = { at: performance.now(), seq };
    if (this.busy) this.#view.status = `Cut off after event ${number.format(seq)}`;
    this.#draw();
    setTimeout(() => this.#draw(), cutFor);
  }

  async #follow(handle) {
    this.#handle = handle;
    this.#draw();
    handle.accepted.then(
      () => this.#handle === handle && this.#known(this.id),
      () => {}, // as the events do, which say why
    );
    try {
      for await (const event of handle) {
        if (this.#handle !== handle) return;
        this.#take(event);
        this.#draw();
      }
    } catch (error) {
      if (this.#handle !== handle) return;
      this.#fail(error);
    }
    this.#draw();
  }

  #take(event) {
    const view = this.#view;
    if (event.type === 'progress') {
      view.progress = event;
      return;
    }
    if (event.type === 'gap') {
      if (event.reason !== 'expired') view.outputs = [];
      view.missed += event.reason === 'expired' ? event.oldest - 1 - view.seq : 0;
      view.seq = event.oldest - 1;
    } else {
      view.missed += event.seq - view.seq - 1;
      view.seq = event.seq;
    }
    view.epoch = event.epoch;
    switch (event.type) {
      case 'accepted':
        view.status = 'Waiting for a worker';
        break;
      case 'running':
        view.outputs.splice(event.outputsFrom);
        view.status = event.attempt > 1 ? `Running, attempt ${event.attempt}` : 'Running';
        break;
      case 'output':
        view.outputs.push({ seq: event.seq, ...event.data });
        break;
      case 'retrying':
        view.status = `${retries[event.reason] ?? retries.error}; another attempt follows`;
        break;
      case 'canceling':
        view.status = 'Canceling';
        break;
      case 'complete':
        this.#end('Done');
        view.result = event.result;
    }
    if (view.cut && !view.over && event.type !== 'canceling') this.#back();
  }

  #back() {
    const { at, seq } = this.#view.cut;
    const away = ((performance.now() - at) / 1000).toFixed(1);
    this.#view.status = `Back after ${away} s, at event ${number.format(seq + 1)}`;
    this.#view.cut = undefined;
  }

  #end(status) {
    const { started, progress } = this.#view;
    const took = started ? ` after ${((performance.now() - started) / 1000).toFixed(1)} s` : '';
    this.#view.status = status + (status === 'Failed' ? '' : took);
    this.#view.over = true;
    if (progress && status === 'Done') progress.percentage = 100;
  }

  #fail(error) {
    const view = this.#view;
    view.seq = Math.max(view.seq, this.#handle.cursor.after);
    if (error.code === 'CANCELED') {
      this.#end('Canceled');
    } else {
      this.#end('Failed');
      view.error = `${sentence(error.message)} ${advice(error, view.seq === 0 && view.started)}`;
    }
  }

  #$(selector) {
    return this.#panel.querySelector(selector);
  }

  /** Draws once for all that comes before the next frame. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#paint();
      this.#changed();
    });
  }

  #paint() {
    const view = this.#view;
    const state = this.#client.state;
    this.#panel.toggleAttribute('data-idle', view.id === '' || (view.over && view.outputs.length === 0));
    this.#$('.connection').dataset.phase = this.#line.isCut ? 'reconnecting' : state.phase;
    text(this.#$('.connection .text'), this.#line.isCut ? 'Connection cut' : connection(state));
    text(this.#$('.status'), view.status);
    const percentage = view.progress?.percentage ?? 0;
    this.#$('progress').value = percentage;
    text(this.#$('.percent'), `${Math.floor(percentage)} %`);
    text(this.#$('.message'), view.progress?.message ?? '');
    notice(this.#$('.error'), view.error ?? unreachable(state, this.busy && !this.#line.isCut));
    notice(this.#$('.result'), view.result && result(view.result));
    this.#$('.cut').disabled = this.#line.isCut;

    const facts = {
      directories: view.outputs.length,
      files: sum(view.outputs, 'files'),
      lines: sum(view.outputs, 'lines'),
      seq: view.seq,
      missed: view.missed,
    };
    for (const [name, value] of Object.entries(facts)) {
      text(this.#$(`[data-fact=${name}]`), number.format(value));
    }
    const newest = view.outputs.slice(-rows).reverse();
    for (const [i, row] of [...this.#$('tbody').rows].entries()) {
      const { seq, dir, files, lines } = newest[i] ?? {};
      [seq, dir, files, lines].forEach((value, j) => {
        text(row.cells[j].firstElementChild ?? row.cells[j], typeof value === 'number' ? number.format(value) : (value ?? ''));
      });
      row.cells[1].title = dir ?? '';
    }
  }
}

function nothing() {
  return { id: '', status: 'Nothing started yet', epoch: '', seq: 0, missed: 0, outputs: [], over: false };
}

/** Sets a text where it is another one: a live region would read it out again. */
function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

function notice(element, value) {
  text(element, value ?? '');
  element.hidden = !value;
}

const sum = (outputs, field) => outputs.reduce((total, output) => total + output[field], 0);

function connection({ phase, transport }) {
  const by = transport ? ` by ${names[transport]}` : '';
  switch (phase) {
    case 'open':
      return `Connected${by}`;
    case 'connecting':
      return `Connecting${by}`;
    case 'reconnecting':
      return 'Connecting again';
    case 'closed':
      return 'Closed';
    default:
      return 'Not connected yet';
  }
}

function unreachable({ phase, attempt }, busy) {
  if (!busy || phase !== 'reconnecting' || attempt < 5) return '';
  return 'The server does not answer. It is tried again and again; if you stopped it, start it in its terminal.';
}

const result = ({ files, lines, bytes, csv }) =>
  `${number.format(files)} files with ${number.format(lines)} lines, ${number.format(bytes)} bytes. The list is in ${csv}`;

const sentence = (message) => message.replace(/^./, (c) => c.toUpperCase()).replace(/[^.!?]$/, '$&.');

function advice({ code, retryAfter }, refused) {
  switch (code) {
    case 'VALIDATION_ERROR':
      return 'Correct the directory and press Start.';
    case 'NOT_FOUND':
      return refused
        ? 'Correct the directory and press Start.'
        : 'The server forgets a request some time after its end, and all of them when it is restarted. Press Start for a new one.';
    case 'RATE_LIMITED':
    case 'SERVICE_UNAVAILABLE':
      return `Press Start again in ${Math.ceil((retryAfter ?? 5000) / 1000)} s.`;
    default:
      return 'Press Start to try again; if it happens again, look at what the server printed.';
  }
}
