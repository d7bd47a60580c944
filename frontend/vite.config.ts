import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// Where `npm run dev` sends the API: a fake cluster, or a node of a real one.
const backend = process.env.DRYSTONE_URL ?? 'http://127.0.0.1:8480';

export default defineConfig({
  plugins: [react()],
  base: './',
  build: {
    outDir: 'dist/app',
    emptyOutDir: true,
    target: ['es2022', 'safari16'],
    chunkSizeWarningLimit: 900,
    // Woff2 stays a file: data: fonts are not allowed by our content policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    host: '127.0.0.1',
    proxy: {
      '/api': {
        target: backend,
        ws: true,
        secure: false,
        changeOrigin: true,
        // A node accepts a websocket only from a page of its own.
        headers: { origin: backend },
      },
    },
  },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.{ts,tsx}', 'test/**/*.test.ts'],
    setupFiles: ['./test/setup.ts'],
    restoreMocks: true,
  },
});
