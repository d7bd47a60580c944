import { Button } from '@mantine/core';
import { IconBug } from '@tabler/icons-react';
import i18next from 'i18next';
import { Component } from 'react';
import type { ReactNode } from 'react';
import { Empty } from '../ui/Empty';

interface State {
  error: Error | undefined;
}

/** The last net: a mistake in a screen shows itself and takes nothing else down. */
export class ErrorBoundary extends Component<{ children: ReactNode }, State> {
  override state: State = { error: undefined };

  static getDerivedStateFromError(error: unknown): State {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }

  override render(): ReactNode {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <Empty
        icon={<IconBug size={26} />}
        title={i18next.t('crash.title')}
        text={`${i18next.t('crash.text')} (${error.message})`}
        action={<Button onClick={() => location.reload()}>{i18next.t('crash.reload')}</Button>}
      />
    );
  }
}
