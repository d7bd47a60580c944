import { render, screen } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import type { Alarm } from '../../api/types';
import { Alarms } from './Headline';

const alarm = (severity: Alarm['severity'], text: string): Alarm => ({
  code: 'pool_full',
  severity,
  object: text,
  text,
  since: '2026-01-01T12:00:00Z',
});

describe('alarms', () => {
  it('take no room when there are none', () => {
    const { container } = render(<Alarms alarms={[]} />);
    expect(container.innerHTML).toBe('');
  });

  it('are told in words, as bad as the worst of them', () => {
    render(
      <Alarms alarms={[alarm('warning', 'A disk failed'), alarm('critical', 'It is full')]} />,
    );
    screen.getByText('A disk failed');
    screen.getByText('It is full');
    expect(screen.getByRole('status').dataset.level).toBe('critical');
  });
});
