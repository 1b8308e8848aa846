import { StreamerClient } from '@streamer/client';
import { StreamerProvider } from '@streamer/client/react';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { type Actions, App } from './App';
import './style.css';

const client = new StreamerClient<Actions>(new URL('/ws', location.origin.replace('http', 'ws')));

createRoot(document.querySelector('#root')!).render(
  <StrictMode>
    <StreamerProvider client={client}>
      <App />
    </StreamerProvider>
  </StrictMode>,
);
