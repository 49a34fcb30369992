"""`reidsa explore`: a page on which a browser shows ranked lists and maps, opened from disk.

runs, features    what is shown: networks of finished runs; vectors made elsewhere
page              the page's folder and its files of data
lists, pictures   ranked lists with their numbers; the pictures on the page
maps, network     what is drawn over a picture; the network that runs in the page
assets            the page itself: HTML, CSS, JavaScript
"""
