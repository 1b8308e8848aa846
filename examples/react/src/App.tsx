import { useAttach, useConnectionState, useRequest } from '@streamer/client/react';
import { type FormEvent, useState } from 'react';

type Directory = { dir: string; files: number; lines: number };
type Totals = { files: number; lines: number; bytes: number; csv: string };

export type Actions = {
  inventory: { input: { dir: string; seconds: number }; output: Totals; chunk: Directory };
};

const number = new Intl.NumberFormat('en');
const newest = { maxOutputs: 8 };

export function App() {
  // The id is in the URL: after a reload the page attaches to the request that it started before.
  const [found] = useState(() => location.hash.slice(1));
  const started = useRequest<Actions, 'inventory'>('inventory', newest);
  const attached = useAttach<Totals, Directory>(started.id ? null : found || null, newest);
  const shown = started.id ? started : attached;
  const { status, progress, outputs, data, error, cancel } = shown;
  const busy = !['idle', 'completed', 'failed', 'canceled'].includes(status);

  function start(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const { id } = started.run({ dir: String(form.get('dir')), seconds: 15 });
    history.replaceState(null, '', `#${id}`);
  }

  return (
    <main>
      <h1>Inventory</h1>
      <form onSubmit={start}>
        <label>
          Directory <input name="dir" defaultValue="." required autoComplete="off" spellCheck={false} />
        </label>
        <button type="submit" disabled={busy}>
          Start
        </button>
        <button type="button" disabled={!busy || status === 'canceling'} onClick={cancel}>
          Cancel
        </button>
      </form>

      <p role="status">
        <strong>{status}</strong> <Connection />
      </p>
      <progress aria-label="Progress" max={100} value={data ? 100 : (progress?.percentage ?? 0)} />
      <p>{progress?.message ?? 'Nothing to show yet.'}</p>

      {error && status === 'failed' && (
        <p role="alert">{error.message}. Correct the directory, or look at what the server printed, and press Start.</p>
      )}
      {data && (
        <p className="result">
          {number.format(data.files)} files, {number.format(data.lines)} lines. The list is in {data.csv}
        </p>
      )}
      {outputs.length > 0 && (
        <table>
          <caption>Newest directories</caption>
          <thead>
            <tr>
              <th scope="col">Directory</th>
              <th scope="col">Files</th>
              <th scope="col">Lines</th>
            </tr>
          </thead>
          <tbody>
            {[...outputs].reverse().map(({ dir, files, lines }) => (
              <tr key={dir}>
                <td>{dir}</td>
                <td>{number.format(files)}</td>
                <td>{number.format(lines)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </main>
  );
}

function Connection() {
  const { phase, transport } = useConnectionState();
  return (
    <small>
      connection {phase}
      {phase === 'open' && `, ${transport}`}
    </small>
  );
}
