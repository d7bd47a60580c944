import { notifications } from '@mantine/notifications';
import { useCallback, useState } from 'react';
import { Problem } from './Problem';

/** Says shortly that something was done. */
export function said(message: string): void {
  notifications.show({ message, color: 'tarn', autoClose: 3500, withBorder: true });
}

/**
 * Runs what a button does without a dialog. What went wrong is shown until it is
 * closed; what went well is said if there is something to say.
 */
export function useRun(): {
  busy: boolean;
  run: (work: () => Promise<unknown>, success?: string) => void;
} {
  const [busy, setBusy] = useState(false);
  const run = useCallback((work: () => Promise<unknown>, success?: string) => {
    setBusy(true);
    work()
      .then(() => {
        if (success !== undefined) said(success);
      })
      .catch((err: unknown) => {
        notifications.show({
          message: <Problem error={err} />,
          color: 'red',
          autoClose: false,
          withBorder: true,
        });
      })
      .finally(() => setBusy(false));
  }, []);
  return { busy, run };
}
