// @vitest-environment jsdom
import { act, cleanup, configure, renderHook, waitFor } from '@testing-library/react';
import type { ReactNode } from 'react';
import { hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { StreamerClient } from '../src/index.js';
import { StreamerProvider, useAttach, useConnectionState, useRequest } from '../src/react.js';
import { createTestServer } from '../src/testing.js';

let client: StreamerClient;

configure({ reactStrictMode: true });

beforeEach(() => {
  const server = createTestServer();
  server.handle('export_data', () => 'done');
  client = new StreamerClient(server.url, { WebSocket: server.WebSocket, transport: 'websocket' });
});

afterEach(() => {
  cleanup();
  client.close();
  vi.restoreAllMocks();
});

function Provided({ children }: { children: ReactNode }) {
  return <StreamerProvider client={client}>{children}</StreamerProvider>;
}

function Page() {
  const { phase } = useConnectionState();
  const { status } = useRequest('export_data');
  const attached = useAttach('r1');
  return <p>{[phase, status, attached.status, attached.id].join(' ')}</p>;
}

describe('useConnectionState', () => {
  test('shows what the connection does', async () => {
    const { result } = renderHook(useConnectionState, { wrapper: Provided });
    expect(result.current.phase).toBe('idle');
    act(() => void client.submit('export_data', { format: 'csv' }));
    await waitFor(() => expect(result.current).toMatchObject({ phase: 'open', transport: 'websocket' }));
    act(() => client.close());
    await waitFor(() => expect(result.current.phase).toBe('closed'));
  });
});

describe('on the server', () => {
  const page = () => (
    <Provided>
      <Page />
    </Provided>
  );

  test('nothing is running, and nothing is asked for', () => {
    const attach = vi.spyOn(client, 'attach');
    const subscribe = vi.spyOn(client, 'subscribe');
    expect(renderToString(page())).toBe('<p>idle idle pending r1</p>');
    expect(attach).not.toHaveBeenCalled();
    expect(subscribe).not.toHaveBeenCalled();
    expect(client.state.phase).toBe('idle');
  });

  test('and in the browser the page comes to life without a difference', async () => {
    const complaint = vi.spyOn(console, 'error');
    await client.submit('export_data', { format: 'csv' }).accepted;
    const container = document.body.appendChild(document.createElement('div'));
    container.innerHTML = renderToString(page());
    const root = await act(async () => hydrateRoot(container, page()));
    await waitFor(() => expect(container.textContent).toBe('open idle failed r1'));
    expect(complaint).not.toHaveBeenCalled();
    act(() => root.unmount());
    container.remove();
  });
});
