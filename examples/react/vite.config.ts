import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const service = 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [react()],
  // The client is linked from its folder, which has a React of its own for its tests.
  resolve: { dedupe: ['react', 'react-dom'] },
  server: {
    proxy: {
      '/ws': { target: service, ws: true },
      '/requests': service,
      '/events': service,
    },
  },
});
