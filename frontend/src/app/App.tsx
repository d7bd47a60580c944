import { MantineProvider } from '@mantine/core';
import { Notifications } from '@mantine/notifications';
import { QueryClientProvider } from '@tanstack/react-query';
import type { QueryClient } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import type { Connections } from '../api/connection';
import { WorldProvider } from '../api/context';
import type { Platform } from '../platform';
import { ErrorBoundary } from './ErrorBoundary';
import { router } from './routes';
import { theme, variables } from './theme';

interface Props {
  platform: Platform;
  connections: Connections;
  queries: QueryClient;
}

export function App({ platform, connections, queries }: Props) {
  return (
    <MantineProvider theme={theme} cssVariablesResolver={variables} defaultColorScheme="auto">
      <Notifications position="bottom-right" containerWidth={400} />
      <ErrorBoundary>
        <QueryClientProvider client={queries}>
          <WorldProvider platform={platform} connections={connections}>
            <RouterProvider router={router} />
          </WorldProvider>
        </QueryClientProvider>
      </ErrorBoundary>
    </MantineProvider>
  );
}
