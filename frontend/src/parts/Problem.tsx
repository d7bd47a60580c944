import { Alert, Button } from '@mantine/core';
import { IconAlertTriangle, IconRefresh } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import { asApiError } from '../api/errors';
import classes from './parts.module.css';

interface Props {
  error: unknown;
  /** Tries again, where that can help. */
  retry?: (() => void) | undefined;
}

/** An error: what happened, what to do, and what to quote. */
export function Problem({ error, retry }: Props) {
  const { t } = useTranslation();
  const e = asApiError(error);
  return (
    <Alert
      color="red"
      variant="light"
      icon={<IconAlertTriangle size={18} />}
      title={t(`error.${e.code}.title`)}
      role="alert"
    >
      {e.code !== 'unreachable' && <p className={classes.detail}>{e.message}</p>}
      <p className={classes.hint}>{t(`error.${e.code}.hint`)}</p>
      <p className={classes.quote}>
        {t('error.code')} <code>{e.code}</code>
        {e.requestId !== '' && (
          <>
            {' · '}
            {t('error.request')} <code>{e.requestId}</code>
          </>
        )}
      </p>
      {retry && (
        <Button
          size="xs"
          variant="default"
          mt={8}
          onClick={retry}
          leftSection={<IconRefresh size={14} />}
        >
          {t('action.retry')}
        </Button>
      )}
    </Alert>
  );
}
