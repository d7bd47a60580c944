import '@mantine/core/styles.css';
import '@mantine/notifications/styles.css';
import '@mantine/spotlight/styles.css';
import './app/global.css';
import { QueryClient } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { Connections } from './api/connection';
import { ApiError } from './api/errors';
import { App } from './app/App';
import { startI18n } from './i18n';
import { boot } from './platform';

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // The live stream tells of changes; nothing goes stale by age alone.
      staleTime: 5_000,
      refetchOnWindowFocus: false,
      retry: (failures, err) =>
        failures < 2 && err instanceof ApiError && err.code === 'unreachable',
      retryDelay: 800,
      networkMode: 'always',
    },
  },
});

async function start(root: HTMLElement): Promise<void> {
  const [platform] = await Promise.all([boot(), startI18n()]);
  createRoot(root).render(
    <StrictMode>
      <App platform={platform} connections={new Connections(platform, queries)} queries={queries} />
    </StrictMode>,
  );
}

const root = document.getElementById('root');
if (root) void start(root);
