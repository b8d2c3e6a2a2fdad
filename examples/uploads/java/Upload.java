import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Uploads zeros with java.net.http, and prints the status of each answer, or what came in its place.
 *
 * <p>java Upload.java HTTP_1_1|HTTP_2 URL MIB TIMES
 */
public class Upload {
  public static void main(String[] args) throws Exception {
    KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
    roots.load(null, null);
    try (var in = new FileInputStream(System.getenv("SSL_CERT_FILE"))) {
      roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(roots);
    var tls = SSLContext.getInstance("TLS");
    tls.init(null, trust.getTrustManagers(), null);
    byte[] body = new byte[Integer.parseInt(args[2]) << 20];
    for (int i = 0; i < Integer.parseInt(args[3]); i++) {
      var client = HttpClient.newBuilder().sslContext(tls).version(HttpClient.Version.valueOf(args[0])).build();
      var request = HttpRequest.newBuilder(URI.create(args[1])).POST(HttpRequest.BodyPublishers.ofByteArray(body)).build();
      try {
        System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
      } catch (Exception e) {
        System.out.println(e);
      }
    }
    System.exit(0);
  }
}
