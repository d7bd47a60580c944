import { Loader } from '@mantine/core';
import type { UseQueryResult } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import type { ApiError } from '../api/errors';
import { useFormat } from '../i18n/format';
import { Problem, Stale } from './Problem';
import classes from './parts.module.css';

interface Props<T> {
  query: UseQueryResult<T, ApiError>;
  children: (data: T) => ReactNode;
}

/**
 * Draws what a query brought. If a later read failed, what there was stays on
 * screen, marked with its time, with the error above it.
 */
export function Await<T>({ query, children }: Props<T>) {
  const { t } = useTranslation();
  const format = useFormat();
  const retry = () => void query.refetch();
  if (query.data === undefined) {
    if (query.error) return <Problem error={query.error} retry={retry} />;
    return (
      <div className={classes.loading}>
        <Loader size="sm" aria-label={t('state.loading')} />
      </div>
    );
  }
  if (!query.error) return children(query.data);
  return (
    <>
      <Stale
        error={query.error}
        since={t('stale.asOf', { time: format.time(query.dataUpdatedAt) })}
        retry={retry}
      />
      {children(query.data)}
    </>
  );
}
