import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { fireEvent, render, screen } from '@testing-library/react';
import { beforeAll, describe, expect, it } from 'vitest';
import { ApiError } from '../api/errors';
import { startI18n } from '../i18n';
import { Await } from './Await';

/** Answers one after another: a text is data, an error is thrown. */
function show(...answers: (string | ApiError)[]) {
  const queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });
  function List() {
    const query = useQuery<string, ApiError>({
      queryKey: ['list'],
      queryFn: () => {
        const next = answers.shift() ?? 'nothing more';
        return next instanceof ApiError ? Promise.reject(next) : Promise.resolve(next);
      },
    });
    return <Await query={query}>{(data) => <p>{data}</p>}</Await>;
  }
  render(
    <MantineProvider>
      <QueryClientProvider client={queries}>
        <List />
      </QueryClientProvider>
    </MantineProvider>,
  );
  return queries;
}

const noLeader = new ApiError('unavailable', 'the cluster has no leader', 503, 'a1b2');

beforeAll(() => startI18n('en'));

describe('Await', () => {
  it('waits, then shows what came', async () => {
    show('three nodes');
    screen.getByLabelText('Loading');
    await screen.findByText('three nodes');
    expect(screen.queryByRole('alert')).toBeNull();
  });

  it('says what happened, what to do and what to quote, and tries again', async () => {
    show(noLeader, 'three nodes');
    const alert = await screen.findByRole('alert');
    for (const part of ['the cluster has no leader', 'Try again shortly', 'unavailable', 'a1b2']) {
      expect(alert.textContent).toContain(part);
    }
    fireEvent.click(screen.getByRole('button', { name: 'Try again' }));
    await screen.findByText('three nodes');
    expect(screen.queryByRole('alert')).toBeNull();
  });

  it('keeps old data on screen with its time when it cannot be read again', async () => {
    const queries = show('three nodes', noLeader);
    await screen.findByText('three nodes');
    await queries.refetchQueries();
    const alert = await screen.findByRole('alert');
    expect(alert.textContent).toMatch(/as of \d\d:\d\d:\d\d/);
    expect(alert.textContent).toContain('the cluster has no leader');
    screen.getByText('three nodes');
  });
});
