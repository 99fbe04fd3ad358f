//! A connection that changed its protocol: bytes both ways until one side ends.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::measure::{End, Measure};
use super::upstream::Connection;
use crate::proxy::serve::Tasks;

/// Bytes that are held for each direction.
const BUFFER: usize = 4 * 1024;

/// Joins the client of `request` with the instance that answered 101 with `response`.
///
/// It counts as one request that is open until either side ends, or the instance is cut off.
pub(super) fn join(
    tasks: &Tasks,
    mut request: Request<()>,
    response: &mut Response<Incoming>,
    connection: Connection,
    measure: Measure,
) {
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "only a change of protocol is joined");
    let (client, instance) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(response));
    let cut = measure.open().0.instance.cut.clone();
    tasks.spawn(async move {
        let joined = async {
            let (instance, ()) = tokio::join!(instance, connection.finish());
            let (mut client, mut instance) = (TokioIo::new(client.await?), TokioIo::new(instance?));
            // That a side broke off is how such connections end.
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut instance, BUFFER, BUFFER).await;
            Ok::<(), hyper::Error>(())
        };
        let ended = cut.run_until_cancelled(joined).await;
        measure.ended(if ended.is_some() { End::Whole } else { End::Broken });
    });
}
