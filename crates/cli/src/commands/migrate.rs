//! `cortex migrate`.

use cortex_server::{Config, store};

use crate::error::Error;

pub(crate) async fn run(config: Config) -> Result<(), Error> {
    store::migrate(&config.database).await?;
    println!("the schema is up to date");
    Ok(())
}
