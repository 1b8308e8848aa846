import { Viewer } from './viewer.js';

const $ = (selector) => document.querySelector(selector);
const controls = $('#controls');
const start = controls.querySelector('[type=submit]');
const cancel = $('#cancel');
const refused = $('#refused');
const second = $('#second');
const tab = $('#tab');

let other;
const first = new Viewer('This page', update, (id) => {
  if (other && other.id !== id) other.attach(id); // before that the server would not know the request
});

/** The id of the request is in the URL, so that the page finds it again after a reload, and other tabs can. */
const idInUrl = () => decodeURIComponent(location.hash.slice(1));

function show(id) {
  history.replaceState(null, '', `#${encodeURIComponent(id)}`);
  tab.href = location.href;
  tab.hidden = false;
}

function update() {
  start.disabled = first.busy;
  cancel.disabled = !first.busy || first.canceling;
}

controls.addEventListener('submit', (event) => {
  event.preventDefault();
  refused.hidden = true;
  const { dir, seconds } = controls.elements;
  const id = first.start({ dir: dir.value.trim(), seconds: Number(seconds.value) });
  show(id);
});

cancel.addEventListener('click', async () => {
  refused.hidden = true;
  try {
    await first.cancel();
  } catch (error) {
    refused.textContent = `The request could not be canceled: ${error.message}. Try again when the connection is open.`;
    refused.hidden = false;
  }
});

second.addEventListener('click', () => {
  if (other) {
    other.close();
    other = undefined;
  } else {
    other = new Viewer('Second viewer');
    if (first.id) other.attach(first.id);
  }
  second.textContent = other ? 'Remove the second viewer' : 'Add a second viewer';
  second.setAttribute('aria-expanded', String(Boolean(other)));
});

function goOn() {
  const id = idInUrl();
  if (!id || id === first.id) return;
  show(id);
  first.attach(id);
  other?.attach(id);
}

addEventListener('hashchange', goOn);
goOn();
